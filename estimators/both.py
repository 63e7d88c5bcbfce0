"""BothRounded: X and Y rounded, as in training whose weight gradients are of few bits."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.estimator import Compressed, Estimator, Traits
from sketchvar.estimators.floating import GridRounding
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.quantize import StochasticRounding
from sketchvar.estimators.seeds import fold

Rounding = GridRounding | StochasticRounding


@dataclass(frozen=True)
class BothRounded(Estimator):
    """Keeps X rounded by ``of_x``; the backward phase rounds Y by ``of_y``, by random numbers of
    its own from the same seed: Ĝ = X̂ᵀŶ.

    With x̃, ỹ the means of x̂, ŷ and e, d the expected squared errors of their rows about them:
    Variance: ‖X̃ᵀỸ − G‖² + Σᵢ (‖ỹᵢ‖²eᵢ + ‖x̃ᵢ‖²dᵢ + eᵢdᵢ), of the rotated pair where tokens are
    mixed; the first part is the bias, zero unless a side is rounded to the nearest. Bytes: those of
    ``of_x``. Time: that of both and 2npq.
    Use: to see what the weight gradient of FP8 or FP4 training adds.
    Raises: ValueError unless both mix tokens alike.
    Source: NVIDIA 2025, https://arxiv.org/abs/2509.25149, whose recipe has X to the nearest and Y
    at random; the variance is derived here.
    """

    of_x: Rounding
    of_y: Rounding

    def __post_init__(self) -> None:
        if mixing_of(self.of_x) != mixing_of(self.of_y):
            raise ValueError(
                "BothRounded needs X and Y to mix tokens alike, got rotate="
                f"{mixing_of(self.of_x)} and {mixing_of(self.of_y)} along tokens"
            )

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """Biased where a side is; rounding needs the pair and the basis."""
        x, y = self.of_x.traits, self.of_y.traits
        return x._replace(
            biased=x.biased or y.biased,
            order_matters=x.order_matters or y.order_matters,
            slow_form=True,
        )

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        return self.of_x.compress(x, seed)

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        rounded = self.of_y.compress(y, fold(kept.seed, "output gradient"))
        first, *rest = (
            of_x.T @ of_y
            for of_x in self.of_x.parts(kept, y.dtype)
            for of_y in self.of_y.parts(rounded, y.dtype)
        )
        return sum(rest, first)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        x, y = m.pair
        e = m.metric.x_errors(self.of_x.errors(x), self.of_x.basis(x))
        d = m.metric.y_errors(self.of_y.errors(y), self.of_y.basis(y))
        x_mean, y_mean = mean_of(self.of_x, x), mean_of(self.of_y, y)
        x_sq, y_sq = m.metric.sides(mixed(self.of_x, x_mean), mixed(self.of_y, y_mean))
        return self.bias_sq(m) + (y_sq * e + x_sq * d + e * d).sum(dtype=torch.float64)

    def bias_sq(self, m: Moments) -> Float[Tensor, ""]:
        """‖E Ĝ − G‖²_F."""
        if not self.traits.biased:
            return torch.zeros_like(m.D)
        x, y = m.pair
        return m.metric.norm_sq(mean_of(self.of_x, x).T @ mean_of(self.of_y, y) - m.G)

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return self.of_x.kept_bytes(n, p, dtype)


def mixing_of(rounding: Rounding) -> int | None:
    """How many tokens it mixes at a time."""
    grid = isinstance(rounding, GridRounding) and rounding.axis == "tokens"
    return rounding.rotate if grid else None


def mean_of(rounding: Rounding, x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """E x̂."""
    return rounding.restore(rounding.compress(x, 0), x.dtype) if rounding.traits.biased else x


def mixed(rounding: Rounding, x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """X with its rows as they are mixed."""
    return rounding.mixed(x) if isinstance(rounding, GridRounding) else x
