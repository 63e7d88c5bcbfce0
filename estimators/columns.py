"""NormColumns: some features of X, each by its own coin."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.certain import BernoulliRows
from sketchvar.estimators.estimator import (
    SEED_BYTES,
    Compressed,
    Estimator,
    Traits,
    check_rate,
    kept_count,
)
from sketchvar.estimators.feature import feature_moments
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.norms import norm
from sketchvar.estimators.seeds import generator


@dataclass(frozen=True)
class NormColumns(Estimator):
    """Keeps column j of X, or not, by its own coin of probability πⱼ = min(1, c‖X_:j‖), divided by
    πⱼ, and its number; c makes Σπ = r = max(1, round(rate · p)).

    Where few features are large, as channels with outliers are, they are kept for certain. The
    number kept is random, and so are the bytes: ``kept_bytes`` is their mean. Choosing columns
    synchronises the device.
    Variance: Σⱼ ‖Gⱼ‖²(1/πⱼ − 1), Gⱼ row j of G: like that of all features, it does not fall as the
    batch grows. Bytes: r(n + 4 bytes of number) in the mean. Time: 2nrq and one read of X.
    Use: where few features are much larger than the others.
    Source: Drineas, Kannan, Mahoney 2006, https://doi.org/10.1137/S0097539704442684, for rows; of
    features it is derived here.
    """

    rate: float
    traits = Traits(varying_size=True, needs_pair=True, basis_matters=True)

    def __post_init__(self) -> None:
        check_rate(self, self.rate)

    def inclusion(self, x: Float[Tensor, "n p"]) -> Float[Tensor, " p"]:
        """π of every column, in float64."""
        return BernoulliRows(self.rate).inclusion(norm(x, dim=0).double())

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        pi = self.inclusion(x)
        columns = generator(seed, x.device).coins(pi, torch.float64).nonzero()[:, 0]
        kept = (x.T[columns] / pi[columns, None]).to(x.dtype)  # what varies in size comes first
        return Compressed(seed, (x.shape[0], x.shape[1]), (kept, columns.to(torch.int32)))

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        values, columns = kept.tensors
        return y.new_zeros(kept.shape[1], y.shape[1]).index_copy_(0, columns.long(), values @ y)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        squares = feature_moments(m).rows_sq
        pi = self.inclusion(m.pair[0])
        return torch.where(squares == 0, 0.0, squares * (1 / pi - 1)).sum()

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return SEED_BYTES + kept_count(self.rate, p) * (n * dtype.itemsize + 4)
