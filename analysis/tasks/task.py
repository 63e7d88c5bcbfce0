"""Task (abstract): what a study trains: a model, its examples, its loss and its metric."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sketchvar.estimators.seeds import fold, generator

Inputs = Tensor | dict[str, Tensor]
Batch = tuple[Inputs, Tensor]  # inputs and targets; the first dimension counts examples


class Validation(NamedTuple):
    """On held-out examples: the mean loss, and the task's metric (more is better)."""

    loss: float
    metric: float


@dataclass(frozen=True)
class Task(ABC):
    """A model with data. Batches are a function of (step, seed), so that a resumed run sees what it
    would have seen.

    AdamW at a constant rate unless a task says otherwise: a study of noise wants no schedule in its
    way.
    """

    steps: int
    measure_at: tuple[int, ...]
    batch_size: int
    learning_rate: float
    precision: str = "float32"
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    warmup: float | None = (
        # fraction of the steps over which the rate rises, before it falls to 0; None: constant
        None
    )
    metric: str = "accuracy"

    @property
    def dtype(self) -> torch.dtype:
        """In which a layer keeps its input while the task trains."""
        return getattr(torch, self.precision)

    @property
    @abstractmethod
    def population(self) -> int | None:
        """Number of training examples that an epoch draws without replacement; None where they are
        not finite.
        """

    @abstractmethod
    def model(self) -> nn.Module:
        """A freshly initialised model, from torch's global generator."""

    @abstractmethod
    def batch(self, step: int, seed: int) -> Batch:
        """The minibatch of a step: ``batch_size`` examples drawn at random."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean training loss of a batch (a scalar)."""

    @abstractmethod
    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        """Mean loss and metric on a fixed set of held-out examples; the model is left in training
        mode.
        """

    @abstractmethod
    def provenance(self) -> dict[str, object]:
        """What the data is, so that a reader can tell whether two runs saw the same."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            model.parameters(),
            self.learning_rate,
            self.betas,
            self.epsilon,
            weight_decay=self.weight_decay,
            fused=True,
        )  # fused: on a CPU a fifth of the time

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of the update after ``step`` of ``steps``: constant, or up and then down in
        straight lines.
        """
        if self.warmup is None:
            return self.learning_rate
        rise = self.warmup * steps
        return self.learning_rate * min(
            (step + 1) / max(rise, 1), (steps - step) / max(steps - rise, 1), 1
        )


def epoch_places(population: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Which examples a step draws: every epoch goes through a permutation of its own, without its
    incomplete batch.

    Raises ValueError for a batch larger than the population.
    """
    if batch_size > population:
        raise ValueError(
            f"a batch of {batch_size} cannot be drawn from {population} examples; choose a"
            " smaller one"
        )
    epoch, place = divmod(step, population // batch_size)
    order = torch.randperm(population, generator=generator(fold(seed, "epoch", epoch)))
    return order[place * batch_size : (place + 1) * batch_size]


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    inputs, targets = batch
    if isinstance(inputs, dict):
        return {name: t.to(device) for name, t in inputs.items()}, targets.to(device)
    return inputs.to(device), targets.to(device)


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Fraction of the targets that have the greatest logit (last dimension)."""
    return float((logits.argmax(-1) == targets).double().mean())
