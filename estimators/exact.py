"""Exact: keeps X, variance 0; the shortest example of an estimator."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.estimator import SEED_BYTES, Compressed, KeepsRows
from sketchvar.estimators.moments import Moments


@dataclass(frozen=True)
class Exact(KeepsRows):
    """Keeps X itself: Ĝ = XᵀY.

    Variance: 0. Bytes: n·p. Time: 2npq.
    Use: as the control of everything else.
    Source: what every framework does.
    """

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        return Compressed(seed, (x.shape[0], x.shape[1]), (x,))

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        (x,) = kept.tensors
        return x.T @ y

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        return torch.zeros_like(m.D)

    def weights_sq(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return torch.ones_like(norms)

    def kept_shape(self, n: int, p: int) -> tuple[int, int]:
        return n, p

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return SEED_BYTES + n * p * dtype.itemsize
