"""RowSketch (abstract): keeps SᵀX, with S drawn without looking at X."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.estimator import (
    SEED_BYTES,
    Compressed,
    KeepsMatrix,
    check_rate,
    kept_count,
)

Draw = TypeVar(
    "Draw"
)  # how a sketch writes S down: a matrix, or a permutation and signs, or row numbers


@dataclass(frozen=True)
class RowSketch(KeepsMatrix, Generic[Draw]):
    """Ĝ = (SᵀX)ᵀ(SᵀY) with a random S (n × k), E[SSᵀ] = I, k = max(1, round(rate · n)).

    Only SᵀX and the seed are kept; backward draws S again. Splitting ``draw``, the only random
    step, from ``apply``, which is deterministic and linear, lets tests enumerate every outcome. S
    is a function of (estimator, seed, n, device type): a draw for n rows is not the start of a draw
    for n + 1.
    """

    rate: float

    def __post_init__(self) -> None:
        check_rate(self, self.rate)

    @abstractmethod
    def draw(self, n: int, seed: int, device: torch.device) -> Draw:
        """S for n rows, in whatever form ``apply`` reads. Numbers are drawn in float32 and cast on
        use.
        """

    @abstractmethod
    def apply(self, s: Draw, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        """SᵀX, in the dtype of X; never a view of X."""

    def k(self, n: int) -> int:
        """The number of rows kept of n."""
        return kept_count(self.rate, n)

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        n, p = x.shape
        return Compressed(seed, (n, p), (self.apply(self.draw(n, seed, x.device), x),))

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        (sketched,) = kept.tensors
        s = self.draw(kept.shape[0], kept.seed, y.device)
        # Ĝᵀ is formed, not Ĝ: the layout of a layer's weight, which autograd then takes without a
        # copy
        if not isinstance(self, BlockSketch) or not small_blocks_pay(y):
            return (self.apply(s, y).T @ sketched).T
        g = y.new_zeros(y.shape[1], kept.shape[1])
        done = 0
        for block in self.blocks(s, BLOCK):
            rows = self.apply(block, y)
            g.addmm_(rows.T, sketched[done : done + rows.shape[0]])
            done += rows.shape[0]
        return g.T

    def kept_shape(self, n: int, p: int) -> tuple[int, int]:
        return self.k(n), p

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return SEED_BYTES + self.k(n) * p * dtype.itemsize


# rows: SᵀY then stays in the cache and in memory that the process has, where a large one is paged
# in anew
BLOCK = 512


@dataclass(frozen=True)
class BlockSketch(RowSketch[Draw]):
    """A row sketch that can make some rows of SᵀX without the others."""

    @abstractmethod
    def blocks(self, s: Draw, size: int) -> Iterator[Draw]:
        """``s`` in pieces of ``size`` rows of SᵀX, in order: ``apply`` of each gives those rows."""


def small_blocks_pay(y: Tensor) -> bool:
    """Whether summing over blocks is faster and as exact: on a CPU, and not in a dtype too narrow
    for partial sums.
    """
    return y.device.type == "cpu" and y.element_size() >= 4
