"""SampledEntries: some entries of X, each by its own coin."""

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
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.norms import wide
from sketchvar.estimators.seeds import generator


@dataclass(frozen=True)
class SampledEntries(Estimator):
    """Keeps entry xᵢⱼ, or not, by its own coin of probability πᵢⱼ = min(1, c|xᵢⱼ|), divided by πᵢⱼ,
    and its place; c makes Σπ = k = max(1, round(rate · n · p)).

    DropIT without its bias. The number kept is random, and so are the bytes: ``kept_bytes`` is
    their mean. Choosing entries sorts X and synchronises the device.
    Variance: Σᵢ ‖yᵢ‖² Σⱼ xᵢⱼ²(1/πᵢⱼ − 1). Bytes: k entries and 4 bytes of place for each. Time:
    2npq and a sort of X.
    Use: to see DropIT without its bias; a place takes as many bytes as a number.
    Source: Chen et al. 2022 (DropIT), https://arxiv.org/abs/2202.13808, for the largest entries.
    """

    rate: float
    traits = Traits(varying_size=True, needs_pair=True, basis_matters=True, slow_form=True)

    def __post_init__(self) -> None:
        check_rate(self, self.rate)

    def inclusion(self, x: Float[Tensor, "n p"]) -> Float[Tensor, " entries"]:
        """π of every entry, in float64."""
        return BernoulliRows(self.rate).inclusion(x.abs().double().flatten())

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        pi = self.inclusion(x)
        places = generator(seed, x.device).coins(pi, torch.float64).nonzero()[:, 0]
        values = (x.flatten()[places].double() / pi[places]).to(x.dtype)
        return Compressed(seed, (x.shape[0], x.shape[1]), (values, places.to(torch.int32)))

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        values, places = kept.tensors
        x = y.new_zeros(kept.shape)
        x.flatten()[places.long()] = values.to(y.dtype)  # a view of x
        return x.T @ y

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        x = m.pair[0]
        squares = wide(x).double().square().flatten()
        each = torch.where(squares == 0, 0.0, squares * (1 / self.inclusion(x) - 1))
        return m.weigh(each.reshape(x.shape)).sum()

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return SEED_BYTES + kept_count(self.rate, n * p) * (dtype.itemsize + 4)
