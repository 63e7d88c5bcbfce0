"""Task (abstract): what a study trains: a model, its examples, its loss and its metric."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from inspect import get_annotations
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from sketchvar.estimators.seeds import fold, generator

PRECISIONS = ("float32", "bfloat16")
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

    steps: Annotated[int, "updates of a whole training"]
    measure_at: Annotated[tuple[int, ...], "after how many updates a study measures"]
    batch_size: Annotated[int, "examples in a batch"]
    learning_rate: Annotated[float, "of AdamW; where it changes, the highest"]
    precision: Annotated[str, "of matrix products, float32 or bfloat16; weights are float32"] = (
        "float32"
    )
    betas: Annotated[tuple[float, float], "of AdamW's moving averages"] = (0.9, 0.95)
    epsilon: Annotated[float, "of AdamW"] = 1e-8
    weight_decay: Annotated[float, "of AdamW"] = 0.1
    warmup: Annotated[
        float | None,
        "fraction of the updates in which the learning rate rises before it falls to 0;"
        " None: it is constant",
    ] = None
    metric: Annotated[str, "what of the held-out examples is reported beside the loss"] = "accuracy"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {self.batch_size}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate:g}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )

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

    def count_tokens(self, batch: Batch) -> Tensor | None:
        """How many tokens of each example the loss is a mean over; None where it is one over
        examples, or over equally many tokens of each.
        """
        return None

    def check(self) -> None:
        """Read the data, so that what is missing shows before any work.

        Raises ValueError, with the remedy, for what cannot be read, and for a batch that is larger
        than the data.
        """
        self.provenance()
        if self.population is not None:
            check_batch(self.batch_size, self.population)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            model.parameters(),
            self.learning_rate,
            self.betas,
            self.epsilon,
            weight_decay=self.weight_decay,
            fused=True,  # on a CPU a fifth of the time
        )

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


class Setting(NamedTuple):
    """A field of a task that can be changed: its name, type, value, and what it is."""

    name: str
    kind: Any
    value: Any
    about: str


def list_settings(task: Task) -> list[Setting]:
    """List the fields of a task, each with what its first declaration says of it."""
    about: dict[str, str] = {}
    for kind in reversed(type(task).__mro__):
        for name, hint in get_annotations(kind).items():
            if get_origin(hint) is Annotated:
                about[name] = get_args(hint)[1]
    kinds = get_type_hints(type(task))
    names = [field.name for field in fields(task)]
    return [Setting(name, kinds[name], getattr(task, name), about.get(name, "")) for name in names]


def check_batch(batch_size: int, population: int) -> None:
    """Raise ValueError for a batch larger than the population."""
    if batch_size > population:
        raise ValueError(
            f"a batch of {batch_size} cannot be drawn from {population} examples; choose a"
            " smaller one"
        )


def epoch_places(population: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Which examples a step draws: every epoch goes through a permutation of its own, without its
    incomplete batch.

    Raises ValueError for a batch larger than the population.
    """
    check_batch(batch_size, population)
    epoch, place = divmod(step, population // batch_size)
    order = torch.randperm(population, generator=generator(fold(seed, "epoch", epoch)))
    return order[place * batch_size : (place + 1) * batch_size]


def move(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to a device."""
    inputs, targets = batch
    if isinstance(inputs, dict):
        return {name: t.to(device) for name, t in inputs.items()}, targets.to(device)
    return inputs.to(device), targets.to(device)


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Fraction of the targets that have the greatest logit (last dimension)."""
    return float((logits.argmax(-1) == targets).double().mean())
