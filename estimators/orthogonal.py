"""Sketches by rows of a randomized orthonormal transform."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sketchvar.estimators.estimator import Traits
from sketchvar.estimators.kernels import cosine_transform, hadamard_transform, next_power_of_two
from sketchvar.estimators.moments import CHUNK, Moments
from sketchvar.estimators.seeds import generator
from sketchvar.estimators.sketch import RowSketch


class SignedRows(NamedTuple):
    """Signs for the n rows of X, then the rows to keep of the transformed matrix."""

    signs: Float[Tensor, " n"]
    rows: Int[Tensor, " k"]


@dataclass(frozen=True)
class SRHT(RowSketch[SignedRows]):
    """Subsampled randomized Hadamard transform: keeps k = rate · n rows of HDX, D random signs, H
    Walsh–Hadamard, n padded to N, a power of two.

    S = D Hᵀ P √(1/k) with P choosing k of N rows, so E[SSᵀ] = I with a diagonal that is exactly 1.
    Variance: (Q + C − 2D)(N − k) / (k(N − 1)); at rate 1 it is 0 only where n is a power of two.
    With replacement (Q + C − 2D) / k. Bytes: k·p. Time: 2kpq and two transforms of N log N per
    column.
    Use: where a transform costs nothing; its variance is that of CountSketch.
    Source: Ailon and Chazelle 2009, https://doi.org/10.1137/060673096; Tropp 2011,
    https://arxiv.org/abs/1011.1595.
    """

    replacement: bool = False

    def draw(self, n: int, seed: int, device: torch.device) -> SignedRows:
        g = generator(seed, device)
        choose = g.integers if self.replacement else g.sample
        return SignedRows(rows=choose(next_power_of_two(n), self.k(n)), signs=g.signs(n))

    def apply(self, s: SignedRows, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        k = max(s.rows.shape[0], 1)
        # close to √(1/k), exact in any dtype: float16 sums do not overflow
        small = 0.5 ** (k.bit_length() // 2)
        signed = x * (s.signs * small).to(x.dtype)[:, None]
        return hadamard_transform(signed)[s.rows] * (k**-0.5 / small)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        k, size = max(self.k(m.n), 1), next_power_of_two(m.n)
        kept = 1.0 if self.replacement else (size - k) / max(size - 1, 1)
        return (m.Q + m.C - 2 * m.D).clamp(min=0) * (kept / k)


@dataclass(frozen=True)
class SubsampledDCT(RowSketch[SignedRows]):
    """Subsampled randomized cosine transform: keeps k = rate · n rows of UDX, D random signs, U the
    orthonormal DCT-II, any n.

    S = D Uᵀ P √(n/k) with P choosing k of n rows, so E[SSᵀ] = I.
    Variance: [(1 − 1/n)(Q + 2C − 3D) + (M + 3D + D_middle)/2 − D/n − C] / k; without
    replacement × (n − k)/(n − 1);
    M = Σ_{a≠a'} ‖x_a‖²‖y_a'‖² + 2⟨x_a,x_a'⟩⟨y_a,y_a'⟩ over mirrored rows a' = n − 1 − a, and
    D_middle = ‖x_a‖²‖y_a‖² of the row with a = a', if n is odd. Any orthonormal U has such a form
    in κ_ab = n Σ_j u²_ja u²_jb, over all pairs of rows; here u²_ja = (1 + cos(π(2a + 1)j/n))/n for
    j > 0 sums to κ_ab = 1 − 1/n + [a = b]/2 + [a = b']/2.
    Bytes: k·p. Time: 2kpq and two real FFTs of n log n per column.
    Use: to repeat the paper; its variance is near that of CountSketch.
    Source: Avron, Maymounkov, Toledo 2010, https://doi.org/10.1137/090767911; the variance is
    derived in this project.
    """

    replacement: bool = False
    traits = Traits(needs_pair=True, order_matters=True)

    def draw(self, n: int, seed: int, device: torch.device) -> SignedRows:
        g = generator(seed, device)
        choose = g.integers if self.replacement else g.sample
        return SignedRows(rows=choose(n, self.k(n)), signs=g.signs(n))

    def apply(self, s: SignedRows, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        n, k = x.shape[0], max(s.rows.shape[0], 1)
        return cosine_transform(x * s.signs.to(x.dtype)[:, None], s.rows) * (n / k) ** 0.5

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        n, k = max(m.n, 1), max(self.k(m.n), 1)
        middle = m.rows_sq[m.n // 2 : m.n // 2 + m.n % 2].sum()
        each = (
            (1 - 1 / n) * (m.Q + 2 * m.C - 3 * m.D)
            + (sum_mirrored(m) + 3 * m.D + middle) / 2
            - m.D / n
            - m.C
        )
        return each.clamp(min=0) * ((1.0 if self.replacement else (n - k) / max(n - 1, 1)) / k)


@dataclass(frozen=True)
class Haar(RowSketch[Float[Tensor, "n k"]]):
    """Keeps the coordinates of X in a uniformly distributed subspace of ℝⁿ of k = rate · n
    dimensions, times √(n/k).

    S is √(n/k) times k orthonormal columns, so E[SSᵀ] = I. The ideal of fast transforms, too dear
    for a layer.
    Variance: n[(n − k)Q + (nk + n − 2)C] / (k(n − 1)(n + 2)) − C; 0 at rate 1.
    Bytes: k·p. Time: 2nk(p + q) + 2kpq, and drawing and orthonormalising n × k numbers twice, 4nk²
    in float64.
    Use: as the standard of orthonormal sketches; SRHT and the cosine transform are faster.
    Source: the moments of Haar measure, Collins and Śniady 2006,
    https://arxiv.org/abs/math-ph/0402073.
    """

    def draw(self, n: int, seed: int, device: torch.device) -> Float[Tensor, "n k"]:
        normal = generator(seed, device).normals(n, self.k(n))
        # float64, so that rate 1 is exact. The signs of the columns, which QR does not draw, drop
        # out of SSᵀ.
        return torch.linalg.qr(normal.double()).Q

    def apply(self, s: Float[Tensor, "n k"], x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        n, k = s.shape
        return (s.to(x.dtype).T @ x) * (n / max(k, 1)) ** 0.5

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        return haar_variance(m.n, self.k(m.n), m.Q, m.C)


def haar_variance(n: int, k: int, Q: Float[Tensor, ""], C: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """That of k uniform orthonormal directions of n, for a pair with these Q and C."""
    if k == n:
        return torch.zeros_like(C)
    square = ((n - k) * Q + (n * k + n - 2) * C) * (n / (k * (n - 1) * (n + 2)))
    return (square - C).clamp(min=0)


def sum_mirrored(m: Moments) -> Float[Tensor, ""]:
    """Σ ‖x_a‖²‖y_a'‖² + 2⟨x_a,x_a'⟩⟨y_a,y_a'⟩ over the rows a ≠ a' = n − 1 − a, counted from the
    other end.
    """

    def make() -> Tensor:
        half, x_side, y_side = m.n // 2, m.x_side, m.y_side
        norms = x_side[:half] * y_side.flip(0)[:half] + y_side[:half] * x_side.flip(0)[:half]
        total = norms.sum(dtype=torch.float64)
        x, y = (zip(*mirror(t), strict=True) for t in m.pair)
        for of_x, of_y in zip(x, y, strict=True):
            common = m.metric.x_side(*of_x) * m.metric.y_side(*of_y)
            total += 4 * common.sum(dtype=torch.float64)
        return total

    return m.once("sum over mirrored rows", make)


def mirror(t: Float[Tensor, "n d"]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The first half of the rows and the others from the end, some at a time."""
    half = t.shape[0] // 2
    return t[:half].split(CHUNK), t[t.shape[0] - half :].flip(0).split(CHUNK)
