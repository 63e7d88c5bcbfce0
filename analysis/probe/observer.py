"""Observer: sees every product of a model's weights, and has a step tally what each tells."""

import contextlib
import weakref
from collections import Counter
from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sketchvar.analysis.probe.fused import FusedLinear, pays
from sketchvar.analysis.probe.intercept import OBSERVED, intercept, release
from sketchvar.analysis.probe.kinds import Kind, kind_of
from sketchvar.analysis.probe.parameters.ledger import Ledger
from sketchvar.analysis.probe.patterns import check_patterns, is_named
from sketchvar.analysis.probe.sight import Sight, expect_end, no_autocast, save
from sketchvar.analysis.probe.step import Step, stamp
from sketchvar.analysis.probe.units import (
    Dimension,
    Examples,
    Unit,
    Weights,
    call_by_name,
    layout_of,
    weights_of,
)
from sketchvar.analysis.probe.watch import Use, Watch
from sketchvar.analysis.probe.weighing import Weigh
from sketchvar.estimators.layers.convert import obstacle
from sketchvar.estimators.layers.forms import Conv2dForm, Form
from sketchvar.estimators.layers.product import is_plain, is_transformed

PARTLY = (
    "{}= is a function of the model's arguments, but only parts of the model were called;"
    " call the model, or give a tensor"
)


class Reading(NamedTuple):
    """An input as it was when a layer read it first; ``x_norm`` is ‖xᵢ‖."""

    input: weakref.ref[Tensor]  # without a callback, in which an interrupt would be lost
    first: str
    version: int
    form: Form
    x_norm: Tensor


class Observer:
    """Runs the modules of ``model`` that multiply rows by a trained weight, while attached, through
    ``see``. It never stops a pass: what it cannot read is a ``reason`` of the step.

    What it computes in a step is queued on the device and read by nobody: no synchronisation.
    """

    def __init__(
        self,
        model: nn.Module,
        by_example: bool,
        pairs: Collection[str],
        examples: Examples,
        scaler: Any,
        every_pair: bool = False,
        several: bool = False,
        exact: bool = False,
        weights: Weights | None = None,
        weigh: Weigh | None = None,
        needed: frozenset[str] = frozenset(),
        layers: Collection[str] = ("*",),
        parameters: bool = True,
    ) -> None:
        check_free(model)
        self.model, self.by_example, self.pairs, self.scaler = model, by_example, pairs, scaler
        self.every_pair, self.several, self.examples = every_pair, several, examples
        self.exact, self.given = exact, weights
        self.weights: Tensor | str | None = None
        if weights is not None:
            self.weights = PARTLY.format("weights") if callable(weights) else weights_of(weights)
        self.layout = PARTLY.format("examples") if callable(examples) else layout_of(examples)
        self.weigh, self.needed = weigh, needed
        self.layers = layers
        self.left_out: dict[tuple[nn.Module, str], str] = {}  # the layers that it does not name
        self.modules: list[nn.Module] = []
        self.kinds: dict[nn.Module, Kind] = {}
        self.norms: dict[nn.Module, str] = {}
        self.places: dict[tuple[nn.Module, str, int | None], Watch] = {}
        self.sharded: dict[Watch, Any] = {}  # the parameters as they are between the steps
        self.mixed: frozenset[Watch] = frozenset()
        self.anchor = torch.zeros((), requires_grad=True)
        self.ledger = Ledger(self) if by_example and parameters else None
        self.survey()
        check_patterns("layers", layers, [*self.watched, *self.left_out.values()])
        if not self.watched:
            raise ValueError(
                f"{type(model).__name__} has no linear layer whose weight requires a gradient:"
                " nothing to probe; nn.Linear, nn.Conv2d, nn.MultiheadAttention and Hugging Face's"
                f" Conv1D can be measured{why_none(model)}"
            )
        self.device = next(iter(self.watched.values())).weight.device
        self.hook: Any = None
        self.whole = True  # gradients are compared in all their entries: the first time
        self.over = True  # the step that was measured last
        self.step = Step(several, True, self.mixed, exact, {})

    @property
    def watched(self) -> dict[str, Watch]:
        """The weights that are trained, by the names of their layers."""
        return {watch.name: watch for watch in self.places.values() if is_trained(watch.weight)}

    def survey(self) -> None:
        """Look for weights, where modules have come or gone."""
        modules = list(self.model.modules())
        if modules == self.modules:
            return
        self.modules = modules
        owners = Counter(id(p) for m in modules for p in m._parameters.values() if p is not None)
        before, self.places = self.places, {}
        self.kinds, self.norms, self.left_out = {}, {}, {}
        for name, module in self.model.named_modules():
            kind = kind_of(module)
            if isinstance(module, _BatchNorm) and "forward" not in vars(module):
                self.norms[module] = name
            if not isinstance(kind, Kind):
                continue
            self.kinds[module] = kind
            for layer, (owner, key) in kind.weights(name, module).items():
                if not is_named(layer, self.layers):
                    self.left_out[owner, key] = layer
                    continue
                known = before.get((owner, key, None))
                tied = owners[id(owner._parameters[key])] > 1
                if known is None or (known.name, known.tied) != (layer, tied):
                    fit = obstacle(self.model, layer, owner) is None if key == "weight" else False
                    known = Watch(layer, owner, key, tied, fit)
                self.places[known.place] = known
        for place, watch in before.items():
            if watch.part is not None and (*place[:2], None) in self.places:
                self.places[place] = watch
        if self.ledger is not None:
            self.ledger.survey(self.model, self.layers)

    def attach(self) -> None:
        """Come between the modules and their forward. Raises ValueError where another probe has."""
        check_free(self.model)
        if callable(self.examples) or callable(self.given) or self.ledger is not None:
            call = Call(self)
            self.hook = self.model.register_forward_pre_hook(call, with_kwargs=True)
        self.begin()

    def begin(self) -> None:
        """The next step is measured: from the next product on, or the next pass over a layer."""
        self.survey()
        self.over = True
        for account in self.step.accounts.values():
            account.let_go()
        self.sharded = {
            watch: weight
            for watch in self.places.values()
            if hasattr(weight := watch.weight, "placements")
        }
        if self.ledger is not None:
            self.ledger.begin(self.model)
        mine = {module: kind.owner for module, kind in self.kinds.items()}
        mine |= {norm: owner_of(type(norm)) for norm in self.norms}
        for module in () if self.ledger is None else self.ledger.owned:
            mine.setdefault(module, owner_of(type(module)))
        if any(module not in OBSERVED for module in mine):
            intercept(self, mine)

    def detach(self) -> None:
        """Leave the modules as they were."""
        if self.hook is not None:
            self.hook.remove()
            self.hook = None
        release(self)

    def called(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        """The model is called with these arguments, on which ``examples`` and ``weights`` may
        depend.
        """
        if not torch.is_grad_enabled() or is_transformed():
            return
        if self.ledger is not None:
            self.ledger.called(args, kwargs)
        if callable(self.examples):
            self.layout = self.ask("examples", self.examples, layout_of, model, args, kwargs)
        if callable(self.given):
            self.weights = self.ask("weights", self.given, weights_of, model, args, kwargs)

    def ask(
        self, name: str, given: Any, read: Any, model: nn.Module, args: Any, kwargs: Any
    ) -> Any:
        """What a function gives for these arguments of the model, or why it cannot be read; None
        where it gives none.
        """
        try:
            found = call_by_name(given, model, args, kwargs)
            return None if found is None and name == "weights" else read(found)
        except Exception as error:
            words = " ".join(str(error).split())
            return f"{name}= could not be read: {type(error).__name__}: {words}"

    def current(self) -> Step:
        """The step that is measured, a new one if the last is over."""
        if self.over:
            self.step.open, self.over = False, False
            stamps = {watch: stamp(watch.weight) for watch in self.places.values()}
            self.step = Step(
                self.several, self.whole, self.mixed, self.exact, stamps, self.weigh, self.needed
            )
            self.step.sharded = self.sharded
            self.step.gather_weights()
        return self.step

    def run(self, module: Any, plain: Any, args: Any, kwargs: Any) -> Any:
        """Do what ``plain(module, *args, **kwargs)`` does, and see it."""
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or is_transformed():
            return plain(module, *args, **kwargs)
        if module in self.norms:
            self.meet(module, args)
        kind = self.kinds.get(module)
        if self.ledger is not None and (kind is None or not has_weight(kind, module)):
            return self.ledger.run(self.current(), module, plain, args, kwargs)
        if kind is None:
            return plain(module, *args, **kwargs)
        return kind.run(module, plain, self.see, args, kwargs)

    def meet(self, norm: Any, args: Any) -> None:
        """A BatchNorm is about to normalise over the batch, perhaps the output of a layer."""
        if not norm.training and norm.running_mean is not None:
            return
        self.couple(self.norms[norm])
        step = self.current()
        out, use = step.outputs.get(id(args[0]) if args else 0, (None, None))
        if use is None or out() is not args[0] or owner_of(type(norm)) is not _BatchNorm:
            return
        if self.by_example and (args[0].ndim == 2 or isinstance(use.form, Conv2dForm)):
            use.normalized = save(self.anchor, args[0]), norm.eps

    def couple(self, norm: str) -> None:
        """Something, by this name, is about to normalise over the batch."""
        if torch.is_grad_enabled() and not is_transformed():
            step = self.current()
            step.coupled = step.coupled or norm

    def see(
        self,
        owner: nn.Module,
        parameter: str,
        form: Form,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        part: slice | None = None,
        flipped: bool = False,
    ) -> Tensor:
        """``form.run(x, weight, bias)``, observed; only run where no gradient will come, or where
        it cannot be read.
        """
        watch = self.find(owner, parameter, weight, part)
        if watch is None:
            return form.run(x, weight, bias)
        step = self.current()
        if self.ledger is not None:
            self.ledger.enter(owner)
        try:
            use = self.use_of(step, watch, form, x, weight, flipped)
        except Exception as error:
            step.fail(watch, error)
            return form.run(x, weight, bias)
        if isinstance(use, str):
            step.tally(watch).problem = use
            return form.run(x, weight, bias)
        if use.task == -1:
            step.tally(watch).begun.add(use)
        else:  # checkpointing runs the forward again, inside the backward pass
            expect_end(step, use.task, self)
        paired = self.is_paired(watch)
        apart = self.ledger is not None and bias is not None and bias.requires_grad
        sight = Sight(step, use, self, self.by_example, paired, bias if apart else None)
        if self.by_example and use.in_sequence(x) and self.forms_products(x, weight):
            return FusedLinear.apply(x, weight, bias, form, sight)
        held = weight.view_as(weight)  # its gradient is this product's own, whatever else there is
        held.register_hook(sight.formed)
        out = form.run(x, held, bias)
        if out._is_view():  # a hook on a view is lost where something writes to it in place
            out = torch.ops.aten._unsafe_view(out, out.shape)
        if self.by_example or paired or self.weigh is not None:
            sight.x_node = save(self.anchor, x)
        out.register_hook(partial(sight.met, held.grad_fn))
        if self.norms:
            step.outputs[id(out)] = weakref.ref(out), use
        return out

    def forms_products(self, x: Tensor, weight: Tensor) -> bool:
        """Whether the gradient is formed example by example: a metric needs that in any case."""
        examples, rows = x.shape[0], x.shape[1:-1].numel()
        if self.weigh is not None and examples > 0 and rows > 1:
            return True
        return pays(examples, rows, *weight.shape)

    def find(
        self, owner: nn.Module, parameter: str, weight: Tensor, part: slice | None
    ) -> Watch | None:
        """The watch of this weight, where it will have a gradient."""
        whole = self.places.get((owner, parameter, None))
        if whole is None or not weight.requires_grad:
            return None
        if whole.weight is not (weight if part is None else weight._base):
            self.current().aside.add(whole)
            return None
        if part is None:
            return whole
        name = f"{whole.name}[{part.start}:{part.stop}]"
        watch = Watch(name, owner, parameter, whole.tied, False, part)
        return self.places.setdefault(watch.place, watch)

    def use_of(
        self, step: Step, watch: Watch, form: Form, x: Tensor, weight: Tensor, flipped: bool
    ) -> Use | str:
        """What is known of a use in forward, or why it cannot be read."""
        if hasattr(weight, "placements"):
            return "its product runs on distributed tensors, as in tensor parallelism"
        if weight.is_complex():
            return "its weight is complex: none of the closed forms here is of complex products"
        if not is_plain(x):
            kind = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
            return f"its input is a {kind} tensor: {type(x).__name__} has no rows to read"
        unit = self.unit_of(form, x, flipped)
        if isinstance(unit, str):
            return unit
        count, weights = unit.count(x), self.weights
        if isinstance(weights, str):
            return weights
        if weights is not None and len(weights) != count:
            return f"weights= gives {len(weights)} numbers, but it has {count} examples"
        p = form.size(x, weight)[1]
        task = torch._C._current_graph_task_id()
        norms = self.reading(step, watch.name, form, x)
        sizes = count, (p, weight.numel() // max(p, 1))
        leading = x.shape[:1] if isinstance(form, Conv2dForm) else x.shape[:-1]
        use = Use(watch, form, unit, task, *sizes, leading, weight, norms.x_norm, norms.first)
        use.weights = None if weights is None else weights.to(x.device)
        return use

    def unit_of(self, form: Form, x: Tensor, flipped: bool) -> Unit | str:
        """How the rows of this input divide into examples, or why that is not known."""
        if isinstance(self.layout, str):
            return self.layout
        layout = self.layout.flipped() if flipped else self.layout
        if not isinstance(form, Conv2dForm):
            flat = None if flipped or self.ledger is None else self.ledger.unit(x.shape[:-1])
            return layout.fit(x.shape[:-1]) if flat is None else flat
        unit = layout.fit(x.shape[:1])
        return Dimension(0) if isinstance(unit, Dimension) else unit

    @torch.no_grad()
    def reading(self, step: Step, name: str, form: Form, x: Tensor) -> Reading:
        """One for all layers that read the same tensor, unchanged, in the same form: those that can
        share a copy.
        """
        found = step.readings.get(id(x))
        if (
            found is None
            or found.input() is not x
            or (found.version, found.form) != (x._version, form)
        ):
            with no_autocast(x.device.type):
                found = step.readings[id(x)] = Reading(
                    weakref.ref(x), name, x._version, form, form.row_norms(x)
                )
        return found

    def is_paired(self, watch: Watch) -> bool:
        """Whether X and Y of this layer are kept."""
        return self.every_pair or watch.name in self.pairs

    def forget_pairs(self) -> None:
        """Let go of each X and Y that was not asked for by name."""
        for watch, tally in self.step.tallies.items():
            for use in tally.uses:
                use.pair = use.pair if watch.name in self.pairs else None
                use.weighed = None

    def arrived(self, step: Step, use: Use, x: Tensor | None, y: Tensor, bias: Any) -> None:
        """The output gradient of a use is here: what its bias and a shared weight have of it."""
        if self.ledger is not None:
            self.ledger.take(step, use, x, y, bias)

    def rescale(self, step: Step) -> None:
        """Note the scale of the loss."""
        if self.scaler is not None:
            step.scale = self.scaler.scale(torch.ones((), device=self.device))

    def opened(self, step: Step, watch: Watch) -> None:
        """A pass reaches a weight."""
        self.rescale(step)
        whole = self.places.get((watch.module, watch.parameter, None), watch)
        step.tally(watch).open(self.sharded.get(whole, watch.weight))

    @torch.no_grad()
    def ended(self, step: Step, task: int) -> None:
        """A backward pass has ended: the weight gradients are formed."""
        with no_autocast(self.device.type):
            step.finish(task, self.watched.values())
            if self.ledger is not None:
                self.ledger.finish(step, task)


class Call:
    """A hook that shows an observer how the model is called. In a copy of the model, or where it is
    loaded, a hook of the standard library that does nothing is in its place.
    """

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    def __call__(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        self.observer.called(model, args, kwargs)

    def __reduce__(self) -> Any:
        return getattr, (contextlib.nullcontext(), "__exit__")


def check_free(model: nn.Module) -> None:
    """Raise ValueError where a probe is attached to a part of the model."""
    if any(module in OBSERVED for module in model.modules()):
        raise ValueError(
            f"a Probe is already attached to this {type(model).__name__}: leave its with block, or"
            " call its close(), before another begins"
        )


def is_trained(weight: Any) -> bool:
    """Whether it is a parameter that will have a gradient."""
    return isinstance(weight, nn.Parameter) and weight.requires_grad


def has_weight(kind: Kind, module: nn.Module) -> bool:
    """Whether a module of this kind has a weight that is trained, for its products to be seen."""
    return any(
        is_trained(owner._parameters.get(key)) for owner, key in kind.weights("", module).values()
    )


def owner_of(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that a class has its forward from."""
    return next(each for each in kind.__mro__ if "forward" in vars(each))


def why_none(model: nn.Module) -> str:
    """What is wrong with the layers of a model none of which can be measured."""
    reasons = {
        name: kind
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention)
        and isinstance(kind := kind_of(module), str)
    }
    return "".join(f"; {name or 'it'}: {reason}" for name, reason in list(reasons.items())[:1])
