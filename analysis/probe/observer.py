"""Observer: sees every product of a model's weights, forward and backward, and hands each to its
Watch.
"""

import types
import weakref
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from sketchvar.analysis.probe.fused import FusedLinear, pays
from sketchvar.analysis.probe.kinds import Kind, kind_of
from sketchvar.analysis.probe.units import Examples, Unit, unit_of
from sketchvar.analysis.probe.watch import Use, Watch
from sketchvar.estimators.layers.forms import Conv2dForm, Form

OBSERVED: weakref.WeakKeyDictionary[nn.Module, "Observer"] = weakref.WeakKeyDictionary()


class Reading(NamedTuple):
    """An input as it was when a layer read it first; ``x_norm`` is ‖xᵢ‖."""

    input: weakref.ref[Tensor]  # without a callback, in which an interrupt would be lost
    first: str
    version: int
    form: Form
    x_norm: Tensor


class Observer:
    """Runs the modules of ``model`` that multiply rows by a trained weight, while attached, through
    ``see``.

    What it computes in a step is queued on the device and read by nobody: no synchronisation.
    """

    stance: ClassVar[Any] = None  # of the compiler, to be given back

    def __init__(
        self,
        model: nn.Module,
        by_example: bool,
        pairs: Collection[str],
        examples: Examples,
        scaler: Any,
        every_pair: bool = False,
    ) -> None:
        check_free(model)
        self.every_pair = every_pair
        self.model, self.by_example, self.pairs, self.scaler = model, by_example, pairs, scaler
        self.examples = examples
        self.unit: Unit | None = None if callable(examples) else unit_of(examples)
        self.scale: Tensor | float = 1.0
        owners = Counter(
            id(p) for m in model.modules() for p in m._parameters.values() if p is not None
        )
        self.kinds: dict[nn.Module, Kind] = {}
        self.watched: dict[str, Watch] = {}
        self.places: dict[tuple[nn.Module, str, int | None], Watch] = {}
        for name, module in model.named_modules():
            kind = kind_of(module)
            if not isinstance(kind, Kind):
                continue
            for layer, (owner, key) in kind.weights(name, module).items():
                weight = owner._parameters[key]
                if weight is not None and weight.requires_grad:
                    self.kinds[module] = kind
                    self.add(Watch(layer, owner, key, weight, alone=owners[id(weight)] == 1))
        if not self.watched:
            raise ValueError(
                f"{type(model).__name__} has no linear layer whose weight requires a gradient:"
                " nothing to probe; nn.Linear, nn.Conv2d, nn.MultiheadAttention and Hugging Face's"
                " Conv1D can be measured"
            )
        self.device = next(iter(self.watched.values())).weight.device
        self.over = False  # the step that was watched
        self.tasks: set[int] = set()
        self.anchor = torch.zeros((), requires_grad=True)
        self.readings: dict[int, Reading] = {}  # of this step, by the id of the input

    def add(self, watch: Watch) -> Watch:
        self.watched[watch.name] = self.places[watch.module, watch.parameter, start(watch.part)] = (
            watch
        )
        return watch

    def attach(self) -> None:
        """Take the place of the modules' ``forward``. Raises ValueError where another probe has
        it.
        """
        check_free(self.model)
        for watch in self.watched.values():  # FSDP may have replaced them
            watch.weight = watch.module._parameters[watch.parameter]  # type: ignore[assignment]
        if (
            not OBSERVED
        ):  # compiled graphs know nothing of a probe: while one is attached, all runs without them
            Observer.stance = torch.compiler.set_stance("force_eager")
        for module, kind in self.kinds.items():
            OBSERVED[module] = self
            module.forward = Forward(module, kind.forward(module, self.see))
        self.hook = self.model.register_forward_pre_hook(self.called, with_kwargs=True)
        self.over = True

    def called(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        """The model is called with these arguments, on which ``examples`` may depend."""
        if callable(self.examples) and torch.is_grad_enabled():
            self.unit = unit_of(self.examples(*args, **kwargs))

    def detach(self) -> None:
        """Give the modules their own ``forward`` back."""
        self.hook.remove()
        for module in self.kinds:
            if OBSERVED.get(module) is self:
                del OBSERVED[module], module.forward
        if not OBSERVED:
            Observer.stance.__exit__(None, None, None)

    def reset(self) -> None:
        """Forget the step before."""
        self.over = False
        self.tasks.clear()
        self.readings.clear()
        for watch in self.watched.values():
            watch.reset()

    def missing(self) -> dict[str, str]:
        """Name -> reason of the layers that cannot be read; a weight that is used in parts is read
        in parts.
        """
        used = {(watch.module, watch.parameter) for watch in self.watched.values() if watch.uses}
        return {
            name: reason
            for name, watch in self.watched.items()
            if (reason := watch.reason())
            and (watch.uses or (watch.module, watch.parameter) not in used)
        }

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
        """``form.run(x, weight, bias)``, observed. Inside a graph that is being compiled, and where
        no gradient will come, it is only run.
        """
        if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and weight.requires_grad):
            return form.run(x, weight, bias)
        if self.over:
            self.reset()
        watch = self.places.get((owner, parameter, start(part)))
        if watch is None:
            whole = self.places.get((owner, parameter, None))
            if whole is None or part is None:  # trained only since the probe was made
                return form.run(x, weight, bias)
            name = f"{whole.name}[{part.start}:{part.stop}]"
            watch = self.add(Watch(name, owner, parameter, whole.weight, whole.alone, part))
        if hasattr(weight, "placements"):
            watch.problem = "its product runs on distributed tensors, as in tensor parallelism"
            return form.run(x, weight, bias)
        use = self.begin(watch, form, x, weight, flipped)
        if not watch.alone:
            weight = weight.view_as(weight)
            weight.register_hook(watch.collect)
        if (
            self.by_example
            and use.in_sequence(x)
            and pays(x.shape[0], x.shape[1:-1].numel(), *weight.shape)
        ):
            return FusedLinear.apply(x, weight, bias, form, partial(self.arrived, use))
        out = form.run(x, weight, bias)
        if (
            out._is_view()
        ):  # a hook on a view is lost where an activation then writes to it in place
            out = torch.ops.aten._unsafe_view(out, out.shape)
        # X waits for backward as a saved tensor, not in this closure: checkpointing and offloading
        # keep working
        node = (
            Saved.apply(self.anchor, x.detach()).grad_fn
            if self.by_example or self.paired(watch)
            else None
        )

        def on_gradient(y: Tensor) -> Tensor:
            nonlocal node
            if not isinstance(form, Conv2dForm):
                y = (
                    y.contiguous()
                )  # as the layer's backward would make it: its rows are read much faster
            x, node = None if node is None else node.saved_tensors[0], None
            self.arrived(use, x, y)
            return y

        out.register_hook(on_gradient)
        return out

    def begin(self, watch: Watch, form: Form, x: Tensor, weight: Tensor, flipped: bool) -> Use:
        """What is known of a use in forward."""
        if self.unit is None:
            raise ValueError(
                "examples= is a function of the model's arguments, but only parts of the model were"
                " called; call the model, or give a tensor"
            )
        unit = self.unit.flipped() if flipped else self.unit
        if isinstance(form, Conv2dForm):
            unit = unit.of_images()
        unit.check(watch.name, x.shape[:1] if isinstance(form, Conv2dForm) else x.shape[:-1])
        task = torch._C._current_graph_task_id()
        if task == -1:
            watch.forwards += 1
        else:  # checkpointing runs the forward again, inside the backward pass
            self.expect_end(task)
        p = form.size(x, weight)[1]
        reading = self.reading(watch.name, form, x)
        return Use(
            watch,
            form,
            unit,
            task,
            unit.count(x),
            (p, weight.numel() // p),
            reading.x_norm,
            reading.first,
        )

    @torch.no_grad()
    def reading(self, name: str, form: Form, x: Tensor) -> "Reading":
        """One for all layers that read the same tensor, unchanged, in the same form: those that can
        share a copy.
        """
        found = self.readings.get(id(x))
        if (
            found is None
            or found.input() is not x
            or (found.version, found.form) != (x._version, form)
        ):
            with no_autocast(x.device.type):
                found = self.readings[id(x)] = Reading(
                    weakref.ref(x), name, x._version, form, form.row_norms(x)
                )
        return found

    @torch.no_grad()
    def arrived(
        self, use: Use, x: Tensor | None, y: Tensor, example_sq: Tensor | None = None
    ) -> None:
        """The output gradient of a use is here; autograd has not yet formed the weight gradient
        from it.
        """
        if use.y_norm is not None:
            use.watch.problem = (
                "its output gradient came twice: a second derivative, or retain_graph"
            )
            return
        if use.task == -1:
            use.task = torch._C._current_graph_task_id()
            self.expect_end(use.task)
        with no_autocast(y.device.type):
            use.arrive(x, y, example_sq, self.by_example, self.paired(use.watch))

    def paired(self, watch: Watch) -> bool:
        """Whether X and Y of this layer are kept."""
        return self.every_pair or watch.name in self.pairs

    def forget_pairs(self) -> None:
        """Let go of each X and Y that was not asked for by name."""
        for watch in self.watched.values():
            for use in watch.uses:
                use.pair = use.pair if watch.name in self.pairs else None

    def expect_end(self, task: int) -> None:
        """Have ``finished`` called when this backward pass has ended, and DDP has averaged its
        gradients.
        """
        if task not in self.tasks:
            self.tasks.add(task)
            if self.scaler is not None:
                self.scale = self.scaler.scale(torch.ones((), device=self.device))
            queue = Variable._execution_engine.queue_callback
            queue(
                lambda: queue(lambda: self.finished(task))
            )  # behind what else is queued during the pass

    @torch.no_grad()
    def finished(self, task: int) -> None:
        """A backward pass has ended: the weight gradients are formed."""
        for watch in self.watched.values():
            if any(use.task == task for use in watch.uses):
                watch.close(task)


def check_free(model: nn.Module) -> None:
    """Raise ValueError where a probe is attached to a part of the model."""
    if any(module in OBSERVED for module in model.modules()):
        raise ValueError(
            f"a Probe is already attached to this {type(model).__name__}: leave its with block, or"
            " call its close(), before another begins"
        )


def no_autocast(device: str) -> AbstractContextManager[Any]:
    """Within, nothing is cast; the context costs more than most of what runs in it, where it is not
    needed.
    """
    return (
        torch.autocast(device, enabled=False)
        if torch.is_autocast_enabled(device)
        else nullcontext()
    )


def start(part: slice | None) -> int | None:
    """Where a part begins; None for the whole."""
    return None if part is None else part.start


class Forward:
    """Stands in for a module's ``forward``. A copy of the module (an average of weights, say) gets
    its class's own.
    """

    def __init__(self, module: nn.Module, run: Callable[..., Any]) -> None:
        self.module, self.run = module, run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        copied = memo[id(self.module)]
        return types.MethodType(type(copied).forward, copied)


class Saved(torch.autograd.Function):
    """An identity whose graph node holds a tensor as autograd holds its own: hooks on saved tensors
    apply to it.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return anchor.view_as(anchor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
