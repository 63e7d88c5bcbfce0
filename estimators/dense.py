"""Dense sketches: every entry of S is random and independent."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.kernels import counter
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.seeds import generator
from sketchvar.estimators.sketch import RowSketch


class Unmade(NamedTuple):
    """√k·S that ``entries(n, k, seed, device)`` would make whole, and a GPU kernel makes in tiles
    as it multiplies.
    """

    entries: Callable[[int, int, int, torch.device], Tensor]
    k: int
    seed: int


@dataclass(frozen=True)
class Dense(RowSketch[Float[Tensor, "n k"] | Unmade]):
    """√k·S has independent entries of mean 0, variance 1 and fourth moment ``kurtosis``; ``draw``
    gives √k·S.

    Var = (Q + C + (kurtosis − 3) D) / k, from E[s_a s_b s_c s_d] over one column, times 1/k for k
    independent columns.
    """

    @property
    @abstractmethod
    def kurtosis(self) -> float:
        """Fourth moment of an entry of √k·S."""

    def apply(
        self, s: Float[Tensor, "n k"] | Unmade, x: Float[Tensor, "n d"]
    ) -> Float[Tensor, "k d"]:
        if isinstance(s, Unmade):
            fast = counter.kernels(x.device)
            if fast is not None and x.dtype in fast.DTYPES:
                return fast.product(s.entries, s.k, s.seed, x)
            s = s.entries(x.shape[0], s.k, s.seed, x.device)
        k = s.shape[1]
        return (s.to(x.dtype).T @ x) * max(k, 1) ** -0.5

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        return (m.Q + m.C + (self.kurtosis - 3) * m.D).clamp(min=0) / max(self.k(m.n), 1)


@dataclass(frozen=True)
class Gaussian(Dense):
    """Keeps SᵀX with S of independent N(0, 1/k) entries, so E[SSᵀ] = I.

    Variance: (Q + C) / k. Bytes: k·p. Time: 2nk(p + q) + 2kpq, and drawing nk normals twice.
    Source: Bershatsky et al. 2022, https://arxiv.org/abs/2201.13195, with the sign of C corrected.
    """

    @property
    def kurtosis(self) -> float:
        return 3.0

    def draw(self, n: int, seed: int, device: torch.device) -> Float[Tensor, "n k"] | Unmade:
        if counter.kernels(device) is not None:
            return Unmade(counter.normals, self.k(n), seed)
        return generator(seed, device).normals(n, self.k(n))


@dataclass(frozen=True)
class Rademacher(Dense):
    """Keeps SᵀX with S of independent ±1/√k entries, so E[SSᵀ] = I with a diagonal that is exactly
    1.

    Variance: (Q + C − 2D) / k. Bytes: k·p. Time: 2nk(p + q) + 2kpq, and drawing nk signs twice.
    Source: Achlioptas 2003, https://doi.org/10.1016/S0022-0000(03)00025-4.
    """

    @property
    def kurtosis(self) -> float:
        return 1.0

    def draw(self, n: int, seed: int, device: torch.device) -> Float[Tensor, "n k"] | Unmade:
        if counter.kernels(device) is not None:
            return Unmade(counter.sign_matrix, self.k(n), seed)
        return generator(seed, device).signs(n, self.k(n))
