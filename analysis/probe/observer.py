"""Observer: sees every product of a model's weights, and has a step tally what each tells."""

import contextlib
import weakref
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sketchvar.analysis.probe.asked import Asked
from sketchvar.analysis.probe.fused import FusedLinear, pays
from sketchvar.analysis.probe.intercept import OBSERVED, intercept, release
from sketchvar.analysis.probe.parameters.ledger import Ledger
from sketchvar.analysis.probe.sight import Sight, expect_end, no_autocast, save
from sketchvar.analysis.probe.step import Step, stamp
from sketchvar.analysis.probe.survey import Survey, has_weight, owner_of
from sketchvar.analysis.probe.units import Examples, Weights
from sketchvar.analysis.probe.uses import use_of
from sketchvar.analysis.probe.watch import Use, Watch
from sketchvar.analysis.probe.weighing import Weigh
from sketchvar.estimators.layers.forms import Conv2dForm, Form
from sketchvar.estimators.layers.product import is_transformed


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
        self.every_pair, self.several, self.exact = every_pair, several, exact
        self.weigh, self.needed = weigh, needed
        self.survey, self.asked = Survey(model, layers), Asked(examples, weights)
        self.sharded: dict[Watch, Any] = {}  # the parameters as they are between the steps
        self.mixed: frozenset[Watch] = frozenset()
        self.anchor = torch.zeros((), requires_grad=True)
        self.ledger = Ledger(self) if by_example and parameters else None
        if self.ledger is not None:
            self.ledger.survey(model, layers)
        self.device = next(iter(self.watched.values())).weight.device
        self.hook: Any = None
        self.whole = True  # gradients are compared in all their entries: the first time
        self.over = True  # the step that was measured last
        self.step = Step(several, True, self.mixed, exact, {})

    @property
    def places(self) -> dict[tuple[nn.Module, str, int | None], Watch]:
        """All weights under observation, by what tells them apart."""
        return self.survey.places

    @property
    def watched(self) -> dict[str, Watch]:
        """The weights that are trained, by the names of their layers."""
        return self.survey.watched

    def attach(self) -> None:
        """Come between the modules and their forward. Raises ValueError where another probe has."""
        check_free(self.model)
        if self.asked.depends or self.ledger is not None:
            call = Call(self)
            self.hook = self.model.register_forward_pre_hook(call, with_kwargs=True)
        self.begin()

    def begin(self) -> None:
        """The next step is measured: from the next product on, or the next pass over a layer."""
        if self.survey.look() and self.ledger is not None:
            self.ledger.survey(self.model, self.survey.layers)
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
        mine = {module: kind.owner for module, kind in self.survey.kinds.items()}
        mine |= {norm: owner_of(type(norm)) for norm in self.survey.norms}
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
        self.asked.called(model, args, kwargs)

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
        if module in self.survey.norms:
            self.meet(module, args)
        kind = self.survey.kinds.get(module)
        if self.ledger is not None and (kind is None or not has_weight(kind, module)):
            return self.ledger.run(self.current(), module, plain, args, kwargs)
        if kind is None:
            return plain(module, *args, **kwargs)
        return kind.run(module, plain, self.see, args, kwargs)

    def meet(self, norm: Any, args: Any) -> None:
        """A BatchNorm is about to normalise over the batch, perhaps the output of a layer."""
        if not norm.training and norm.running_mean is not None:
            return
        self.couple(self.survey.norms[norm])
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
            known = None if self.ledger is None else self.ledger.unit
            unit = self.asked.unit_of(form, x, flipped, known)
            use = use_of(step, watch, form, x, weight, unit, self.asked.weights)
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
        node: Any = out.grad_fn  # the output's own hooks run before: FSDP's brings the weight back
        node.register_prehook(partial(sight.met, held.grad_fn))
        if self.survey.norms:
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
