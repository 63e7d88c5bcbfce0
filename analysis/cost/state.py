"""A state of training, and the copies that go on from it: each by its method, on its batches."""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sketchvar.analysis.noise.spread import Loss, random_kept
from sketchvar.estimators import Estimator, sketch_linears, unsketch
from sketchvar.estimators.layers.convert import Patterns
from sketchvar.estimators.layers.opaque import seeds_from
from sketchvar.estimators.seeds import fold


class Method(NamedTuple):
    """How a fork trains: exactly on a ``fraction`` of each batch, or on all of it by an estimator,
    or one for each layer.
    """

    name: str
    rate: float
    fraction: float
    estimator: Estimator | Mapping[str, Estimator] | None


class Fork(NamedTuple):
    """One copy that goes on: by a method, at ``factor`` times the learning rate."""

    method: Method
    factor: float
    tuning: bool
    number: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What its row says of it: ``KEYS``."""
        name, rate, fraction, _ = self.method
        return name, rate, fraction, self.factor, self.tuning, self.number


@dataclass(frozen=True)
class State:
    """Where forks start from and what they go on: all copied, nothing changed."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    batches: Mapping[tuple[bool, int], Sequence[Any]]  # of (tuning, number)
    evaluation: Sequence[Any]
    schedule: Sequence[float] = ()
    clip: float = math.inf
    seed: int = 0
    include: Patterns = None
    exclude: Patterns = None

    def run(self, fork: Fork) -> float:
        """The loss on ``evaluation`` where this fork ends; infinite where it diverges.

        Batches and whatever else is random in the model are those of its number, whatever the
        method: forks of one number are pairs.
        """
        with random_kept(self.model):
            model, optimizer = copy.deepcopy((self.model, self.optimizer))
            unsketch(model)
            if fork.method.estimator is not None:
                sketch_linears(model, fork.method.estimator, self.include, self.exclude)
            rates = [float(group["lr"]) * fork.factor for group in optimizer.param_groups]
            own = fold(self.seed, "fork", int(fork.tuning), fork.number)
            for step, batch in enumerate(self.batches[fork.tuning, fork.number]):
                scale = self.schedule[step] if step < len(self.schedule) else 1.0
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * scale
                torch.manual_seed(fold(own, step))
                optimizer.zero_grad(set_to_none=True)
                with seeds_from(fold(own, step, "sketch", i) for i in itertools.count()):
                    value = self.loss(model, first_part(batch, fork.method.fraction))
                    if not value.isfinite():
                        return math.inf
                    value.backward()
                if self.clip < math.inf:
                    nn.utils.clip_grad_norm_(model.parameters(), self.clip)
                optimizer.step()
            return self.evaluate(model)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> float:
        """Mean loss in eval mode; infinite where it is not a number."""
        model.eval()
        losses = [float(self.loss(model, batch)) for batch in self.evaluation]
        mean = sum(losses) / len(losses)
        return mean if math.isfinite(mean) else math.inf


def first_part(batch: Any, fraction: float) -> Any:
    """The first examples of a batch: of every tensor in it whose first dimension is that of the
    largest.
    """
    if fraction == 1:
        return batch
    size = max(sizes(batch), default=0)
    if size < 2:
        raise ValueError(f"a batch of {size} examples has no part to train on; give larger ones")
    return cut(batch, size, max(1, round(fraction * size)))


def sizes(batch: Any) -> list[int]:
    if isinstance(batch, Tensor):
        return [len(batch)] if batch.ndim else []
    if isinstance(batch, Mapping):
        return [size for part in batch.values() for size in sizes(part)]
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return [size for part in batch for size in sizes(part)]
    return []


def cut(batch: Any, size: int, kept: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[:kept] if batch.ndim and len(batch) == size else batch
    if isinstance(batch, Mapping):
        return {name: cut(part, size, kept) for name, part in batch.items()}
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return [cut(part, size, kept) for part in batch]
    return batch
