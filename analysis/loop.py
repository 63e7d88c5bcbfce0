"""The one training loop: a seeded start, forward in the task's precision, backward, update at the
schedule's rate.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sketchvar.analysis.noise import backward
from sketchvar.analysis.probe import Layer, Probe
from sketchvar.analysis.tasks import Batch, Task, Validation, move
from sketchvar.estimators.seeds import fold


@dataclass(frozen=True)
class Training:
    """A task's model on its way through ``steps`` updates; step s is the gradient after s of them.

    What a step draws (its batch, dropout, sketches) is a function of seed and step alone, so that a
    training that is resumed, or measured on the way, reaches the same weights.
    """

    task: Task
    model: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int
    device: torch.device
    seed: int

    def batch(self, step: int) -> Batch:
        """The minibatch of a step, on the device."""
        return move(self.task.batch(step, self.seed), self.device)

    def gradient(self, step: int, batch: Batch) -> float:
        """Leave a step's gradient, and no other, in the model; returns its loss.

        Raises FloatingPointError for a loss that is not finite.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.seed_step(step)
        return backward(forward(self.task, self.model, batch, self.device), f"step {step}")

    def update(self, step: int) -> None:
        """Update the weights at the schedule's rate, and clear the gradients, so that what is
        measured of the next step begins without them.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.task.rate_at(step, self.steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def advance(self, step: int, batch: Batch | None = None) -> float:
        """Take a whole step, on its own batch unless another is given; returns the loss before."""
        loss = self.gradient(step, self.batch(step) if batch is None else batch)
        self.update(step)
        return loss

    def validate(self) -> Validation:
        """Loss and metric on the held-out examples, in the precision that trains."""
        with in_precision(self.task, self.device):
            return self.task.validate(self.model, self.device)

    def seed_step(self, step: int) -> None:
        """Seed what a step draws from torch's own generators, as dropout and sketches do."""
        torch.manual_seed(fold(self.seed, "step", step))


def start(task: Task, steps: int, device: torch.device, seed: int) -> Training:
    """Build a task's model and optimizer at step 0 of ``steps``."""
    torch.manual_seed(fold(seed, "model"))
    model = task.model().to(device)
    return Training(task, model, task.optimizer(model), steps, device, seed)


def forward(task: Task, model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """Compute the loss (a scalar) in the task's precision."""
    with in_precision(task, device):
        return task.loss(model, batch)


def in_precision(task: Task, device: torch.device) -> AbstractContextManager[object]:
    """Run matrix products in the task's precision."""
    if task.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, task.dtype)


def checkpoint_blocks(model: nn.Module) -> None:
    """Have every block's activations computed again in backward.

    By the model's own switch, or else block by block (``model.blocks``, or its children).
    """
    for switch in (  # of transformers, new and old
        "activation_checkpointing_enable",
        "gradient_checkpointing_enable",
    ):
        if hasattr(model, switch):
            getattr(model, switch)({"use_reentrant": False})
            return
    for block in getattr(model, "blocks", model.children()):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def layers_at(
    task: Task,
    steps: Sequence[int],
    device: torch.device,
    seed: int,
    layer: str | None = None,
    total: int | None = None,
) -> Iterator[tuple[int, dict[str, Layer]]]:
    """Train as ``run`` does and yield at each of ``steps`` (rising) its layers with X and Y kept.

    All layers, or the one called ``layer``. The training has ``total`` updates, as its schedule
    needs to know: up to the last of ``steps`` unless given. Raises ValueError, before training, for
    an unknown name, and FloatingPointError for a loss that is not finite.
    """
    training = start(task, steps[-1] if total is None else total, device, seed)
    names = [layer] if layer else list(Probe(training.model).watched)
    Probe(training.model, pairs=names)  # refuses a name that it does not know
    for step in range(steps[-1] + 1):
        probe = Probe(training.model, pairs=names, parameters=False) if step in steps else None
        with probe or nullcontext():
            training.gradient(step, training.batch(step))
        if probe is not None:
            yield step, {name: read for name, read in probe.read().items() if name in names}
        if step < steps[-1]:
            training.update(step)
