"""RowSketch (abstract): keeps SᵀX, with S drawn without looking at X."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.estimator import SEED_BYTES, Compressed, KeepsMatrix, check_rate, kept_count

Draw = TypeVar("Draw")  # how a sketch writes S down: a matrix, or a permutation and signs, or row numbers


@dataclass(frozen=True)
class RowSketch(KeepsMatrix, Generic[Draw]):
    """Ĝ = (SᵀX)ᵀ(SᵀY) with a random S (n × k), E[SSᵀ] = I, k = max(1, round(rate · n)).

    Only SᵀX and the seed are kept; backward draws S again. Splitting ``draw``, the only random step, from ``apply``,
    which is deterministic and linear, lets tests enumerate every outcome. S is a function of (estimator, seed, n,
    device type): a draw for n rows is not the start of a draw for n + 1.
    """

    rate: float

    def __post_init__(self) -> None:
        check_rate(self, self.rate)

    @abstractmethod
    def draw(self, n: int, seed: int, device: torch.device) -> Draw:
        """S for n rows, in whatever form ``apply`` reads. Numbers are drawn in float32 and cast on use."""

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
        return sketched.T @ self.apply(self.draw(kept.shape[0], kept.seed, y.device), y)

    def kept_shape(self, n: int, p: int) -> tuple[int, int]:
        return self.k(n), p

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return SEED_BYTES + self.k(n) * p * dtype.itemsize
