"""Sketches by rows of a randomized orthonormal transform."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from estimators.dense import signs
from estimators.hadamard import hadamard, padded
from estimators.moments import Moments
from estimators.seeds import generator
from estimators.sketch import RowSketch


class SignedRows(NamedTuple):
    """Signs for the n rows of X, then the rows to keep of the transformed matrix."""

    signs: Float[Tensor, " n"]
    rows: Int[Tensor, " k"]


@dataclass(frozen=True)
class SRHT(RowSketch[SignedRows]):
    """Subsampled randomized Hadamard transform: keeps k rows of HDX, D random signs, H Walsh–Hadamard, n padded to N.

    S = D Hᵀ P √(1/k) with P choosing k of N rows without replacement, so E[SSᵀ] = I with a diagonal that is exactly 1.
    Variance: (Q + C − 2D)(N − k) / (k(N − 1)); at rate 1 it is 0 only where n is a power of two. Bytes: k·p.
    Time: 2kpq and two transforms of N log N per column.
    Source: Ailon and Chazelle 2009, https://doi.org/10.1137/060673096; Tropp 2011, https://arxiv.org/abs/1011.1595.
    """

    def draw(self, n: int, seed: int, device: torch.device) -> SignedRows:
        g = generator(seed, device)
        rows = torch.randperm(padded(n), generator=g, device=device)[: self.k(n)]
        return SignedRows(signs((n,), g), rows)

    def apply(self, s: SignedRows, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        k = max(s.rows.shape[0], 1)
        small = 0.5 ** (k.bit_length() // 2)  # close to √(1/k), exact in any dtype: float16 sums do not overflow
        return hadamard(x * (s.signs * small).to(x.dtype)[:, None])[s.rows] * (k**-0.5 / small)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        k, size = max(self.k(m.n), 1), padded(m.n)
        return (m.Q + m.C - 2 * m.D).clamp(min=0) * ((size - k) / (k * max(size - 1, 1)))
