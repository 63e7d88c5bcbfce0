"""Origins: what a traced tensor knows of the parameters, or of the examples, that it is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sketchvar.analysis.probe.parameters.account import Account
from sketchvar.analysis.probe.parameters.traced import Traced
from sketchvar.analysis.probe.units import Unit

ROWS = "its rows stand in {}: which is of which example is not known"


@dataclass(frozen=True, eq=False)
class Root:
    """Where a parameter comes in: the tensor itself, or what constant picks of it gave; ``take`` is
    given the gradients of it by example (S × its shape).
    """

    tensor: Tensor
    account: Account
    take: Callable[[Tensor], None]


@dataclass(frozen=True, eq=False)
class Shared:
    """Made of parameters alone: the same for all examples.

    ``whole``: it is its one root. ``slot``: it is this matrix of the root, which holds several;
    ``slots``: it is all of them. Either may be ``turned``.
    """

    tracer: Any
    roots: tuple[Root, ...]
    whole: bool = False
    slot: int | Tensor | None = None
    slots: bool = False
    turned: bool = False

    def pull_back(self, t: Tensor, g: Tensor) -> None:
        """Give the roots their part of the gradients ``g`` (S × ...) of ``t``, by example."""
        if self.whole:
            self.roots[0].take(g)
            return
        tensors = [root.tensor for root in self.roots]
        found = torch.autograd.grad(
            t, tensors, g.to(t.dtype), retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        for root, each in zip(self.roots, found, strict=True):
            if each is not None:
                root.take(each)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of activations, each with the number of its example, negative for none."""

    tracer: Any
    numbers: Int[Tensor, "..."]
    examples: int

    def pick(self, index: Any) -> "Rows | None":
        """Those of rows that an index picks."""
        first = index[0] if isinstance(index, tuple) and index else index
        if isinstance(first, Tensor | slice | list) and self.numbers.ndim == 1:
            return Rows(self.tracer, self.numbers[first], self.examples)
        return None


def is_shared(t: Any) -> bool:
    """Whether it is made of parameters alone."""
    return isinstance(t, Traced) and isinstance(t.origin, Shared)


def rows_of(unit: Unit, t: Tensor) -> Tensor:
    """Rows (... × d) by example (S × T × d)."""
    count = unit.count(t)
    rows = unit.part(t, slice(0, count))
    return rows.reshape(count, rows.shape[:-1].numel() // max(count, 1), t.shape[-1])


def sum_rows(unit: Unit, t: Tensor) -> Tensor:
    """Rows (... × d) summed over those of each example (S × d)."""
    return rows_of(unit, t).sum(1)
