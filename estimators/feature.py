"""FeatureProjection: compresses the p features of every row instead of the n rows."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.dense import Gaussian
from sketchvar.estimators.estimator import (
    SEED_BYTES,
    Compressed,
    KeepsMatrix,
    Traits,
    check_rate,
    write_call,
)
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.norms import row_sq
from sketchvar.estimators.sketch import RowSketch


@dataclass(frozen=True)
class FeatureProjection(KeepsMatrix):
    """Keeps XR for a random R (p × r), E[RRᵀ] = I, r = max(1, round(rate · p)); Ĝ = R(XR)ᵀY.

    R is drawn as any row sketch draws S, ``distribution`` being its class: Gaussian, Rademacher,
    UniformRows (which keeps r columns of X), ...
    Variance: (p + 1)C / r for Gaussian, (p − 1)C / r for Rademacher, (p/r − 1)C for columns; as
    Ĝ − G = (RRᵀ − I)G, it is that of sketching the rows of the pair (I, G). Proportional to ‖G‖²,
    it does not fall as the batch grows.
    Bytes: n·r. Time: 2npr + 2nrq + 4p²r, less for a fast R.
    Use: where rows are few and features many; its noise costs less of the loss than its
    variance says.
    Raises: TypeError for a distribution that is no class of a row sketch.
    Source: Liu et al. 2022 (EXACT), https://openreview.net/forum?id=vkaMaq95_rX; the variance is
    derived here.
    """

    rate: float
    distribution: type[RowSketch[Any]] = Gaussian

    __repr__ = write_call

    def __post_init__(self) -> None:
        if not (isinstance(self.distribution, type) and issubclass(self.distribution, RowSketch)):
            raise TypeError(
                "FeatureProjection needs the class of a row sketch as its distribution, as in "
                f"FeatureProjection(0.1, distribution=Rademacher), got {self.distribution!r}"
            )
        check_rate(self, self.rate)

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """Those of the sketch, whose rows are features here."""
        of_rows = self.sketch.traits
        return of_rows._replace(order_matters=False, basis_matters=of_rows.order_matters)

    @property
    def sketch(self) -> RowSketch[Any]:
        """The sketch of the p rows of Xᵀ."""
        return self.distribution(self.rate)

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        n, p = x.shape
        drawn = self.sketch.draw(p, seed, x.device)
        return Compressed(seed, (n, p), (self.sketch.apply(drawn, x.T).T,))

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        (projected,) = kept.tensors
        p = kept.shape[1]
        drawn = self.sketch.draw(p, kept.seed, y.device)
        r = self.sketch.apply(drawn, torch.eye(p, dtype=y.dtype, device=y.device)).T
        return r @ (projected.T @ y)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        return self.sketch.variance(feature_moments(m))

    def kept_shape(self, n: int, p: int) -> tuple[int, int]:
        return n, self.sketch.k(p)

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return SEED_BYTES + n * self.sketch.k(p) * dtype.itemsize


def feature_moments(m: Moments) -> Moments:
    """Moments of (I, G): as Ĝ − G = (RRᵀ − I)G, to project features by R is to sketch the rows of
    that pair by R.

    That pair has n = p, Q = pC and D = C; without G no more is known of it.
    """

    def make() -> Moments:
        if m.plain and not m.has_pair:
            return Moments.of_sums(m.p, m.p, m.q, m.p * m.C, m.C, m.C)
        g_sq = row_sq(m.G)

        def pair() -> tuple[Tensor, Tensor]:
            return torch.eye(m.p).to(m.G), m.G

        return Moments(m.p, m.q, torch.ones_like(g_sq), g_sq, C=m.C, pair=pair, metric=m.metric)

    return m.once("features", make)
