"""Sight: follows one product from its forward into the backward passes that form its gradient."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Variable

from sketchvar.analysis.noise.closed import total_sq
from sketchvar.analysis.probe.step import Own, Step, matrix
from sketchvar.analysis.probe.sums import inner_products
from sketchvar.analysis.probe.watch import Use, Watch
from sketchvar.analysis.probe.weighing import Weighed
from sketchvar.estimators.layers.forms import Conv2dForm


class Ends(Protocol):
    """Who is told of the first product and of the end of every pass."""

    def opened(self, step: Step, watch: Watch) -> None:
        """A pass reaches a weight."""

    def ended(self, step: Step, task: int) -> None:
        """A pass has ended."""

    def arrived(self, step: Step, use: Use, x: Tensor | None, y: Tensor, bias: Any) -> None:
        """The output gradient of a use is here, for whatever else is made of it."""


class Sight:
    """Tells a step's tallies of one use of a weight. Nothing that it does can stop a pass: what
    raises becomes the tally's problem.
    """

    def __init__(
        self, step: Step, use: Use, ends: Ends, by_example: bool, paired: bool, bias: Any = None
    ) -> None:
        self.step, self.use, self.ends, self.bias = step, use, ends, bias
        self.by_example, self.paired = by_example, paired
        self.x_node: Any = None  # which holds X as autograd holds a tensor that it saves

    def passed(self) -> None:
        """A pass went by for the gradient of something else."""
        self.use.differentiated |= torch.is_grad_enabled()

    def met(self, weight_node: Any, gradients: Sequence[Any]) -> tuple[Tensor] | None:
        """A hook of the output's node: its gradient, before autograd forms the weight's from it,
        which it does if ``weight_node`` is to run. No field: that node has a hook of this sight,
        and a circle would outlive the step.
        """
        (y,) = gradients
        if y is None:
            return None
        try:
            if not torch._C._will_engine_execute_node(weight_node):
                self.passed()
                return None
            if not isinstance(self.use.form, Conv2dForm):
                y = y.contiguous()  # as the backward would make it: its rows are read much faster
            x, self.x_node = None if self.x_node is None else self.x_node.saved_tensors[0], None
        except Exception as error:
            self.step.fail(self.use.watch, error)
            return None
        self.arrived(x, y)
        return (y,)

    def root(self) -> Tensor | None:
        """√W of the metric for this use, if there is one."""
        with quietly(self.use.x_norm.device.type):
            metric = self.step.metric_of(self.use) if self.step.open else None
            return None if metric is None else metric.root

    def arrived(
        self,
        x: Tensor | None,
        y: Tensor,
        example_sq: Tensor | None = None,
        weighed_sq: Tensor | None = None,
    ) -> None:
        """The output gradient of the use is here."""
        if not self.step.open:
            return
        try:
            use, now = self.use, torch._C._current_graph_task_id()
            again = use.y_norm is not None or use.differentiated
            use.task = now if again or use.task == -1 else use.task
            own = self.own()
            own.twice |= again
            if again:
                return
            own.uses.append(use)
            alone = self.step.tally(use.watch).alone and len(own.uses) == 1
            with quietly(y.device.type):
                metric = self.step.metric_of(use)
                if metric is not None:
                    use.weighed = Weighed(metric, self.step.needed, weighed_sq)
                paired = self.paired or self.step.exact
                use.arrive(x, y, example_sq, self.by_example, paired, alone)
                self.ends.arrived(self.step, use, x, y, self.bias)
        except Exception as error:
            self.step.fail(self.use.watch, error)

    def formed(self, gradient: Tensor) -> None:
        """The weight's gradient from this use is here."""
        watch = self.use.watch
        if not self.step.open:
            return
        try:
            with quietly(gradient.device.type):
                own = self.step.passes[self.use.task][watch]
                own.add(gradient, self.step.tally(watch))
                if self.use.weighed is not None:
                    self.use.weighed.gradient = self.use.form.matrix(gradient).clone()
                self.use.grad_sq = total_sq(matrix(gradient)) if own.sq is None else own.sq
                alone = self.step.tally(watch).alone and len(own.uses) == 1
                if self.step.exact and alone and not self.step.several:
                    self.take_inner(gradient)
        except Exception as error:
            self.step.fail(watch, error)

    def take_inner(self, gradient: Tensor) -> None:
        """Take ⟨g_s, G⟩ of each example, and let go of X and Y that nobody else asked for."""
        use = self.use
        if not use.coupled:
            use.inner = inner_products([use], gradient)
        use.pair = use.pair if self.paired else None

    def own(self) -> Own:
        """That of this weight in this pass, a new one if it is the first use in it."""
        step, use = self.step, self.use
        expect_end(step, use.task, self.ends)
        found = step.passes[use.task].get(use.watch)
        if found is None:
            self.ends.opened(step, use.watch)
            found = step.passes[use.task][use.watch] = Own()
        return found


def expect_end(step: Step, task: int, ends: Ends) -> None:
    """Have ``ended`` called when this backward pass has ended, and DDP has averaged its
    gradients.
    """
    if task not in step.passes:
        step.passes[task] = {}
        queue = Variable._execution_engine.queue_callback
        # behind what else is queued during the pass
        queue(lambda: queue(lambda: ends.ended(step, task)))


def no_autocast(device: str) -> AbstractContextManager[Any]:
    """Within, nothing is cast; the context costs more than most of what runs in it, where it is not
    needed.
    """
    return (
        torch.autocast(device, enabled=False)
        if torch.is_autocast_enabled(device)
        else nullcontext()
    )


def quietly(device: str) -> AbstractContextManager[Any]:
    """Within, nothing is cast and no graph is built: as it is in most backward passes anyway."""
    if not (torch.is_grad_enabled() or torch.is_autocast_enabled(device)):
        return nullcontext()
    stack = ExitStack()
    stack.enter_context(torch.no_grad())
    stack.enter_context(no_autocast(device))
    return stack


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


def save(anchor: Tensor, x: Tensor) -> Any:
    """A graph node that holds ``x``, so that checkpointing and offloading go on as without it."""
    return Saved.apply(anchor, x.detach()).grad_fn
