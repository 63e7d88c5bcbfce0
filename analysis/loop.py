"""The one training loop: a seeded start, forward in the task's precision, backward, update at the
schedule's rate.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from sketchvar.analysis.noise import backward
from sketchvar.analysis.probe import Layer, Probe
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.tasks import Batch, Task, Validation, move
from sketchvar.estimators.seeds import fold

ONE = Ranks()  # this process alone
PRODUCTS = [torch.ops.aten.mm.default, torch.ops.aten.addmm.default]  # what linear layers call


@dataclass(frozen=True)
class Training:
    """A task's model on its way through ``steps`` updates; step s is the gradient after s of them.

    What a step draws (its batch, dropout, sketches) is a function of seed and step alone, so that a
    training that is resumed, or measured on the way, reaches the same weights. On several ``ranks``
    each trains on its part of the batch, and what they draw within the model is their own.
    """

    task: Task
    model: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int
    device: torch.device
    seed: int
    parallel: DistributedDataParallel | None = None  # of the model, where there are several ranks
    ranks: Ranks = ONE

    @property
    def trained(self) -> nn.Module:
        """The module whose gradient is that of the whole batch."""
        return self.model if self.parallel is None else self.parallel

    def batch(self, step: int) -> Batch:
        """The minibatch of a step, on the device: that of all ranks."""
        return move(self.task.batch(step, self.seed), self.device)

    def gradient(self, step: int, batch: Batch) -> float:
        """Leave a step's gradient, and no other, in the model; returns its loss.

        Raises FloatingPointError for a loss that is not finite.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.seed_step(step)
        return self.backward(batch, f"step {step}")

    def part(self, batch: Batch) -> Batch:
        """This rank's examples of a batch."""
        return take(batch, self.ranks.number, self.ranks.size)

    def backward(self, batch: Batch, where: str) -> float:
        """Add the gradient of a batch's loss to the model's, as averaged over ranks; returns the
        loss.

        A rank's loss counts by the part of the batch that it is a mean over. Raises
        FloatingPointError, naming ``where``, for a loss that is not finite.
        """
        if self.parallel is None:
            return backward(forward(self.task, self.model, batch, self.device), where)
        part = self.part(batch)
        whole, mine = (count(self.task, each) for each in (batch, part))
        share = mine / whole * self.ranks.size
        loss = forward(self.task, self.parallel, part, self.device) * share
        loss.backward()
        value = float(self.ranks.sum(loss.detach())) / self.ranks.size
        if not math.isfinite(value):  # on any rank
            raise FloatingPointError(f"the loss is {value} at {where}")
        return value

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

    def seed_step(self, step: int, seed: int | None = None) -> None:
        """Seed what a step draws from torch's own generators, as dropout and sketches do; by the
        training's seed unless another is given.
        """
        at = fold(self.seed if seed is None else seed, "step", step)
        torch.manual_seed(fold(at, "rank", self.ranks.number) if self.ranks.number else at)


def start(task: Task, steps: int, device: torch.device, seed: int, ranks: Ranks = ONE) -> Training:
    """Build a task's model and optimizer at step 0 of ``steps``; on several ranks by DDP.

    Raises ValueError where a batch has too few examples for all ranks.
    """
    if task.batch_size < ranks.size:
        raise ValueError(
            f"a batch of {task.batch_size} examples has none for some of {ranks.size} processes;"
            " give a larger --batch-size, or fewer processes"
        )
    torch.manual_seed(fold(seed, "model"))
    model = task.model().to(device)
    parallel = DistributedDataParallel(model) if ranks.size > 1 else None
    return Training(task, model, task.optimizer(model), steps, device, seed, parallel, ranks)


def take(batch: Batch, number: int, parts: int) -> Batch:
    """Take one of so many parts of a batch, of as many examples as the others or one less."""

    def of(t: Tensor) -> Tensor:
        return t.tensor_split(parts)[number]

    inputs, targets = batch
    if isinstance(inputs, dict):
        return {name: of(t) for name, t in inputs.items()}, of(targets)
    return of(inputs), of(targets)


def count(task: Task, batch: Batch) -> float:
    """How much the loss of a batch is a mean over: tokens, or examples."""
    tokens = task.count_tokens(batch)
    return len(batch[1]) if tokens is None else float(tokens.sum())


def forward(task: Task, model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """Compute the loss (a scalar) in the task's precision."""
    with in_precision(task, device):
        return task.loss(model, batch)


def in_precision(task: Task, device: torch.device) -> AbstractContextManager[object]:
    """Run matrix products in the task's precision."""
    if task.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, task.dtype)


def checkpoint_blocks(model: nn.Module, selective: bool = False) -> None:
    """Have every block's activations computed again in backward; ``selective``: all but the
    products of linear layers, which are most of the work.

    By the model's own switch, or else block by block (``model.blocks``, or its children).
    Source: Chen et al. 2016, https://arxiv.org/abs/1604.06174; Korthikanti et al. 2022,
    https://arxiv.org/abs/2205.05198.
    """
    how: dict[str, Any] = {"use_reentrant": False}
    if selective:
        how["context_fn"] = partial(create_selective_checkpoint_contexts, PRODUCTS)
    for switch in (  # of transformers, new and old
        "activation_checkpointing_enable",
        "gradient_checkpointing_enable",
    ):
        if hasattr(model, switch):
            getattr(model, switch)(how)
            return
    for block in getattr(model, "blocks", model.children()):
        block.forward = partial(checkpoint, block.forward, **how)


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
