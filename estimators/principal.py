"""PrincipalFeatures: the principal directions of X exactly, and random ones of what is left."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.coarse import principal_directions
from sketchvar.estimators.estimator import (
    SEED_BYTES,
    Compressed,
    Estimator,
    Traits,
    check_rate,
    kept_count,
)
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.norms import wide
from sketchvar.estimators.orthogonal import haar_variance
from sketchvar.estimators.seeds import generator


@dataclass(frozen=True)
class PrincipalFeatures(Estimator):
    """Keeps XQ₁, XQ₂ and Q₁: r₁ principal directions of X (p × r₁) and r₂ uniform ones of their
    complement, r₁ + r₂ = max(1, round(rate · p)), halves; Ĝ = (Q₁Q₁ᵀ + κQ₂Q₂ᵀ)G, κ = (p − r₁)/r₂.

    E Q₂Q₂ᵀ is r₂/(p − r₁) on the complement, so it is unbiased whatever Q₁.
    Variance: (κ − 1)(C − ‖Q₁ᵀG‖²); it is that of a ``Haar`` sketch of PG, P = I − Q₁Q₁ᵀ, in any
    metric. Bytes: n(r₁ + r₂), and p·r₁ in float32. Time: 2nr(p + q), some
    products of X with Q₁ and two QR factorizations.
    Use: where X is nearly of low rank.
    Source: 2026 (PRAC), https://arxiv.org/abs/2602.23111; the variance is derived here.
    """

    rate: float
    traits = Traits(needs_pair=True, basis_matters=True)

    def __post_init__(self) -> None:
        check_rate(self, self.rate)

    def sizes(self, p: int) -> tuple[int, int]:
        """r₁ and r₂."""
        r = kept_count(self.rate, p)
        return r // 2, r - r // 2

    def random_directions(
        self, principal: Float[Tensor, "p r1"], seed: int
    ) -> Float[Tensor, "p r2"]:
        """Uniform orthonormal directions in the complement of the principal ones."""
        p = principal.shape[0]
        normal = generator(seed, principal.device).normals(p, self.sizes(p)[1]).to(principal)
        for _ in range(2):  # twice is enough to be orthogonal to the last digits
            normal = normal - principal @ (principal.T @ normal)
        return torch.linalg.qr(normal).Q

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        n, p = x.shape
        principal = principal_directions(x, self.sizes(p)[0])
        both = torch.cat([principal, self.random_directions(principal, seed)], 1)
        return Compressed(seed, (n, p), ((wide(x) @ both).to(x.dtype), principal))

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        projected, principal = kept.tensors
        p = kept.shape[1]
        first, second = self.sizes(p)
        drawn = self.random_directions(principal, kept.seed)
        both = torch.cat([principal, drawn * ((p - first) / max(second, 1))], 1)
        return both.to(y.dtype) @ (projected.T @ y)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        first, second = self.sizes(m.p)
        principal = principal_directions(m.pair[0], first)
        outside = m.G - principal @ (principal.T @ m.G)
        complement = torch.eye(m.p).to(principal) - principal @ principal.T
        Q = m.metric.total(complement, outside)
        return haar_variance(m.p - first, second, Q, m.metric.norm_sq(outside))

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        first, second = self.sizes(p)
        return (
            SEED_BYTES + n * (first + second) * dtype.itemsize + p * first * max(dtype.itemsize, 4)
        )
