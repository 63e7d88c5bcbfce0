"""Ledger: the accounts of all parameters that a probe's products do not tell of."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from sketchvar.analysis.probe.kinds import Kind, kind_of
from sketchvar.analysis.probe.parameters.account import Account
from sketchvar.analysis.probe.parameters.origin import sum_rows
from sketchvar.analysis.probe.parameters.tracer import Tracer, is_of_torch
from sketchvar.analysis.probe.patterns import is_named
from sketchvar.analysis.probe.product import Product
from sketchvar.analysis.probe.step import Step
from sketchvar.analysis.probe.units import Dimension, Flat, Unit, is_flat
from sketchvar.analysis.probe.watch import Use
from sketchvar.estimators.layers.forms import Conv2dForm

EQUAL = (
    "there are as many examples as positions, and what its table is looked up at, by example or by"
    " position, is not known; measure with another batch size"
)


class Ledger:
    """Keeps the accounts of an observer's steps; ``ends`` is the observer.

    ``count`` is the number of examples that the model was called with, ``rows`` that of their rows.
    """

    def __init__(self, ends: Any) -> None:
        self.ends, self.anchor = ends, ends.anchor
        self.names: dict[int, str] = {}
        self.owned: dict[nn.Module, list[tuple[nn.Module, str]]] = {}
        self.sharded: dict[tuple[nn.Module, str], Any] = {}  # parameters, between the steps
        self.within: dict[int, tuple[Any, Any]] = {}  # and what stands for them within
        self.shape: torch.Size | None = None
        self.inputs: set[int] = set()  # the storages of what the model was called with

    def survey(self, model: nn.Module, layers: Collection[str]) -> None:
        """Look for parameters of modules that ``layers`` names, where modules have come or gone."""
        self.names = {id(p): name for name, p in model.named_parameters()}
        own = {
            module: [(module, key) for key, p in module._parameters.items() if p is not None]
            for name, module in model.named_modules()
            if is_traceable(module) and is_named(name, layers)
        }
        self.owned = {}
        for module in model.modules():
            if "forward" not in vars(module) and not isinstance(module, torch.jit.ScriptModule):
                found = list(own.get(module, ()))
                for child in module.children():  # a parent may read what its child never does
                    if is_of_torch(child) and not isinstance(kind_of(child), Kind):
                        found += own.get(child, ())
                if found:
                    self.owned[module] = found

    def begin(self, model: nn.Module) -> None:
        """A step begins: FSDP will put parameters of its own in place of those that it shards."""
        self.within = {}
        self.sharded = {
            (module, key): p
            for module in model.modules()
            for key, p in module._parameters.items()
            if hasattr(p, "placements")
        }

    def enter(self, module: nn.Module) -> None:
        """The forward of a module begins."""
        for key, p in module._parameters.items() if self.sharded else ():
            if (module, key) in self.sharded:
                self.within[id(p)] = p, self.sharded[module, key]

    def called(self, args: Any, kwargs: Mapping[str, Any]) -> None:
        """The model is called with these arguments: the first tensor among them has examples."""
        given = [*args, *kwargs.values()]
        given += [each for value in given if isinstance(value, Mapping) for each in value.values()]
        plain = [t for t in given if isinstance(t, Tensor) and t.layout is torch.strided and t.ndim]
        self.shape = None
        self.inputs = {t.untyped_storage()._cdata for t in plain}
        if plain:
            wide = plain[0].is_floating_point() and plain[0].ndim > 1
            self.shape = plain[0].shape[:-1] if wide else plain[0].shape

    @property
    def count(self) -> int | None:
        """How many examples the model was called with, where that is known."""
        layout = self.ends.asked.layout
        if isinstance(layout, str):
            return None
        if not isinstance(layout, Dimension):
            return int(layout.count(self.ends.anchor))
        shape = self.shape if layout.data is None else layout.data.shape
        if shape is None:
            return None
        return shape[layout.number] if len(shape) > layout.number else shape[0]

    def unit(self, leading: torch.Size) -> Unit | None:
        """How rows of these dimensions divide into examples; None where that is not known."""
        layout, shape = self.ends.asked.layout, self.shape
        if isinstance(layout, str) or not len(leading):
            return None
        count = self.count
        if isinstance(layout, Dimension) and layout.data is None:
            number = layout.number if len(leading) > 1 else 0
            if count is None or leading[number] == count:
                return layout
            if shape is not None and len(shape) > 1 and is_flat(leading, shape[:2].numel()):
                return Flat(layout, shape[:2], len(leading))
            return None
        found = layout.fit(leading)
        return (
            None if isinstance(found, str) or found.count(leading_like(leading)) != count else found
        )

    def picks(self, ids: Tensor) -> Unit | str | None:
        """How picks of a table's rows divide into examples, None where they are the same for all,
        as positions are, or why neither is known.
        """
        unit, shape = self.unit(ids.shape), self.shape
        if not isinstance(unit, Dimension) or shape is None or len(shape) < 2:
            return unit
        if shape[0] != shape[1] or ids.untyped_storage()._cdata in self.inputs:
            return unit
        return None if ids.ndim == 1 else EQUAL  # positions are as many as examples

    def count_in(self, t: Any) -> int | None:
        """The examples that the first dimension of a tensor counts, if it does."""
        layout = self.ends.asked.layout
        along = isinstance(t, Tensor) and t.ndim > 0 and isinstance(layout, Dimension)
        if not along or layout.number:
            return None
        count = self.count
        return len(t) if count is None or len(t) == count else None

    def run(self, step: Step, module: nn.Module, plain: Any, args: Any, kwargs: Any) -> Any:
        """Do what ``plain(module, *args, **kwargs)`` does, and follow what it has of its own."""
        found = self.owned.get(module, ())
        places = [(owner, key) for owner, key in found if is_plain(owner._parameters.get(key))]
        if not places:
            return plain(module, *args, **kwargs)
        for owner, _ in places:
            self.enter(owner)
        return Tracer(self, step).run(module, places, plain, args, kwargs)

    def account(self, step: Step, p: Any) -> Account:
        """That of a parameter in a step, a new one if there is none."""
        p = self.within.get(id(p), (p, p))[1]
        found = step.accounts.get(id(p))
        if found is None or found.weight is not p:
            name = self.names.get(id(p), "")
            found = step.accounts[id(p)] = Account(name, p, step.exact, step.several)
        return found

    def take(self, step: Step, use: Use, x: Tensor | None, y: Tensor, bias: Any) -> None:
        """The output gradient of a product is here: that of its bias, and of a weight that others
        share.
        """
        task = torch._C._current_graph_task_id()
        if bias is not None:
            whole = bias if bias._base is None else bias._base
            account = self.account(step, whole)
            g = sum_of_use(use, y)
            account.open(task).add_at(g, bias.storage_offset(), whole.numel())
        if use.watch.tied and use.watch.part is None and x is not None:
            account = self.account(step, use.weight)
            x = x.detach().to(y.dtype)
            account.open(task).products.append(Product(use.form, use.unit, x, y))

    def finish(self, step: Step, task: int) -> None:
        """A backward pass has ended."""
        for account in step.accounts.values():
            if account.task != task:
                continue
            try:
                account.close()
            except Exception as error:
                words = " ".join(str(error).split())
                account.problem = f"the probe could not read it: {type(error).__name__}: {words}"


def sum_of_use(use: Use, y: Tensor) -> Tensor:
    """An output gradient summed over the rows of each example (S × q)."""
    if isinstance(use.form, Conv2dForm):
        return (y if y.ndim == 4 else y[None]).flatten(2).sum(2)
    return sum_rows(use.unit, y)


def leading_like(leading: torch.Size) -> Tensor:
    """Something with these leading dimensions, and no memory."""
    return torch.empty(1).expand(*leading, 1)


def is_traceable(module: nn.Module) -> bool:
    """Whether a module's forward reads its parameters where they can be told apart."""
    hidden = nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention | torch.jit.ScriptModule
    return "forward" not in vars(module) and not isinstance(module, hidden)


def is_plain(p: Any) -> bool:
    """Whether a parameter is trained, and here as a whole."""
    return (
        isinstance(p, nn.Parameter)
        and not isinstance(p, UninitializedParameter)
        and type(p) is nn.Parameter
        and p.requires_grad
        and not p.is_complex()
        and p.layout is torch.strided
    )
