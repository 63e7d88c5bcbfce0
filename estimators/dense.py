"""Dense sketches: every entry of S is random and independent."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.kernels import RandomMatrix, draw_normals, draw_signs
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.sketch import RowSketch


@dataclass(frozen=True)
class Dense(RowSketch[RandomMatrix]):
    """√k·S has independent entries of mean 0, variance 1 and fourth moment ``kurtosis``.

    Var = (Q + C + (kurtosis − 3) D) / k, from E[s_a s_b s_c s_d] over one column, times 1/k for k
    independent columns.
    """

    @property
    @abstractmethod
    def kurtosis(self) -> float:
        """Fourth moment of an entry of √k·S."""

    def apply(self, s: RandomMatrix, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        return s.T @ x

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        excess = self.kurtosis - 3
        square = m.Q + m.C + (excess * m.D if excess else 0)  # D costs a product in a metric
        return square.clamp(min=0) / max(self.k(m.n), 1)


@dataclass(frozen=True)
class Gaussian(Dense):
    """Keeps SᵀX, k = rate · n sums of all rows, with S of independent N(0, 1/k) entries, so
    E[SSᵀ] = I.

    Variance: (Q + C) / k. Bytes: k·p. Time: 2nk(p + q) + 2kpq, and drawing nk normals twice.
    Use: to repeat the paper; CountSketch has less variance for the same bytes, in less time.
    Source: Bershatsky et al. 2022 (fewbit), https://arxiv.org/abs/2201.13195, with the sign of C
    corrected.

    >>> Gaussian(rate=0.1).variance(Moments.of(torch.eye(20), torch.eye(20)))  # (400 + 20) / 2
    tensor(210., dtype=torch.float64)
    """

    @property
    def kurtosis(self) -> float:
        return 3.0

    def draw(self, n: int, seed: int, device: torch.device) -> RandomMatrix:
        return draw_normals(n, self.k(n), seed, device)


@dataclass(frozen=True)
class Rademacher(Dense):
    """Keeps SᵀX, k = rate · n sums of all rows, with S of independent ±1/√k entries, so E[SSᵀ] = I
    with a diagonal that is exactly 1.

    Variance: (Q + C − 2D) / k. Bytes: k·p. Time: 2nk(p + q) + 2kpq, and drawing nk signs twice.
    Use: to repeat the paper; CountSketch with balanced buckets has less variance, in less time.
    Source: Achlioptas 2003, https://doi.org/10.1016/S0022-0000(03)00025-4.
    """

    @property
    def kurtosis(self) -> float:
        return 1.0

    def draw(self, n: int, seed: int, device: torch.device) -> RandomMatrix:
        return draw_signs(n, self.k(n), seed, device)
