"""Row sampling that keeps the largest rows of X for certain and treats the others differently."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sketchvar.estimators.designs import (
    Sample,
    chance_to_meet,
    draw_from_groups,
    draw_independently,
)
from sketchvar.estimators.estimator import Traits
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.sampling import SampledRows, normalize
from sketchvar.estimators.seeds import generator


@dataclass(frozen=True)
class BernoulliRows(SampledRows):
    """Keeps row i, or not, by its own coin of probability πᵢ = min(1, c‖xᵢ‖), divided by πᵢ; c
    makes Σπᵢ = k = rate · n exactly.

    The number of rows kept is random with mean k and variance Σπᵢ(1 − πᵢ) < k, and so are the
    bytes: ``kept_bytes`` is their mean (less where fewer than k rows are not zero). Choosing them
    synchronises the device.
    Variance: Σ (1/πᵢ − 1)‖xᵢ‖²‖yᵢ‖²; 0 at rate 1. Bytes: k(p + 4 bytes of row number) in the mean.
    Time: 2kpq and one read of X.
    Use: where the number of rows may vary; else PriorityRows.
    Source: Adelman, Levy, Hakimi, Silberstein 2021 (Bernoulli-CRS),
    https://arxiv.org/abs/1805.08079; Wang et al. 2024 (VCAS), https://arxiv.org/abs/2402.17227.
    """

    traits = Traits(varying_size=True)

    def inclusion(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """π from the norms ‖xᵢ‖, one probability per row; 0 for a zero row unless all rows are
        kept.
        """
        k = self.k(norms.shape[0])
        if k == norms.shape[0]:
            return torch.ones_like(norms)
        order = order_by_norm(norms)
        tail = tail_sums(norms[order])
        t = count_winners(norms[order], k)
        c = (k - t) / tail.gather(0, t[None])
        return torch.where(norms == 0, 0.0, (c * norms).clamp(max=1))

    def sample(self, norms: Float[Tensor, " n"], seed: int) -> Sample:
        pi = self.inclusion(norms)
        rows = generator(seed, pi.device).coins(pi, torch.float64).nonzero()[:, 0]
        return Sample(rows, 1 / pi[rows])

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        lost = m.rows_sq * (1 / self.inclusion(m.x_sq.sqrt()) - 1)
        return torch.where(m.rows_sq == 0, 0.0, lost).sum()

    def weights_sq(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return 1 / self.inclusion(norms)


@dataclass(frozen=True)
class WinnerTakeAllRows(SampledRows):
    """Keeps k = rate · n rows: the t of largest norm as they are, and k − t others with ϖᵢ ∝ ‖xᵢ‖,
    one from each of k − t random groups, or with ``replacement``.

    t makes Σ_others ‖xᵢ‖ / (k − t) least, the bound on the variance that forward can know; a row
    wins just where ``BernoulliRows`` would keep it for certain. At rate 1 all win.
    Variance: f (Σ_others ‖xᵢ‖²‖yᵢ‖²/ϖᵢ − ‖G_others‖²), f as in ``NormRows`` for k − t of n −
    t rows. Bytes and time as ``NormRows``, and a sort of norms; choosing t synchronises the device.
    Use: where a few rows are much larger than all others.
    Source: Liu et al. 2023 (WTA-CRS), https://arxiv.org/abs/2305.15265.
    """

    replacement: bool = False
    traits = Traits(needs_pair=True)

    def sample(self, norms: Float[Tensor, " n"], seed: int) -> Sample:
        order, t, others = self.split(norms)
        draw = draw_independently if self.replacement else draw_from_groups
        drawn = draw(others, self.k(norms.shape[0]) - t, generator(seed, norms.device))
        rows = torch.cat([order[:t], order[t:][drawn.rows]])
        return Sample(rows, torch.cat([norms.new_ones(t), drawn.weights]))

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        order, t, others = self.split(m.x_sq.sqrt())
        if t == m.n:
            return torch.zeros_like(m.D)
        products = m.rows_sq[order][t:]
        terms = torch.where(products == 0, 0.0, products / others)
        lost = terms.sum() - (sum_sq_without(m, order[:t]) if t else m.C)
        return lost.clamp(min=0) * self.factor(m.n, t)

    def weights_sq(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        order, t, others = self.split(norms)
        factor = self.factor(norms.shape[0], t)
        drawn = factor / others if self.replacement else 1 + factor * (1 / others - 1)
        return torch.empty_like(norms).index_copy_(0, order, torch.cat([norms.new_ones(t), drawn]))

    def split(
        self, norms: Float[Tensor, " n"]
    ) -> tuple[Int[Tensor, " n"], int, Float[Tensor, " others"]]:
        """From the norms ‖xᵢ‖: the rows in order of norm, how many of them win, and ϖ of the
        others, which sum to one.
        """
        n, k = norms.shape[0], self.k(norms.shape[0])
        order = order_by_norm(norms)
        t = n if k == n else int(count_winners(norms[order], k))
        return order, t, normalize(norms[order[t:]])

    def factor(self, n: int, t: int) -> float:
        """f of the design that draws k − t of n − t rows."""
        k = self.k(n) - t
        return 1 / max(k, 1) if self.replacement else chance_to_meet(n - t, k)


@dataclass(frozen=True)
class TopRows(SampledRows):
    """Keeps the k = rate · n rows of largest norm as they are and forgets the rest: the same every
    time, and biased.

    Variance: none, so E‖Ĝ − G‖² is all bias, ‖G_forgotten‖²: it does not average out over steps. 0
    at rate 1.
    Bytes and time as ``NormRows``.
    Use: to see what a bias does; WinnerTakeAllRows has none.
    Source: Adelman, Levy, Hakimi, Silberstein 2021 (top-k without scaling),
    https://arxiv.org/abs/1805.08079.
    """

    traits = Traits(biased=True, needs_pair=True)

    def weights_sq(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        kept = order_by_norm(norms)[: self.k(norms.shape[0])]
        return torch.zeros_like(norms).index_fill_(0, kept, 1.0)

    def sample(self, norms: Float[Tensor, " n"], seed: int) -> Sample:
        rows = order_by_norm(norms)[: self.k(norms.shape[0])]
        return Sample(rows, torch.ones_like(norms[rows]))

    def bias_sq(self, m: Moments) -> Float[Tensor, ""]:
        """‖E Ĝ − G‖²_F."""
        return sum_sq_without(m, order_by_norm(m.x_sq.sqrt())[: self.k(m.n)])

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        return self.bias_sq(m)


def order_by_norm(norms: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Row numbers from the largest norm to the least, ties in order of row, so that forward and
    variance agree.
    """
    return norms.argsort(descending=True, stable=True)


def tail_sums(ordered: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Σ_{j ≥ i} of each i, summed from the small end."""
    return ordered.flip(0).cumsum(0).flip(0)


def count_winners(ordered: Float[Tensor, " n"], k: int) -> Int[Tensor, ""]:
    """How many rows to keep for certain, of descending norms aᵢ and for k < n rows in all; at most
    k − 1.

    Σ_{j ≥ t} aⱼ / (k − t) falls with t just as long as row t has (k − t)a_t ≥ Σ_{j ≥ t} aⱼ, then
    rises.
    """
    i = torch.arange(ordered.shape[0], device=ordered.device)
    wins = (i < k - 1) & (ordered * (k - i) >= tail_sums(ordered) * (1 - 1e-12))
    return wins.cumprod(0).sum()


def sum_sq_without(m: Moments, rows: Int[Tensor, " k"]) -> Float[Tensor, ""]:
    """‖Σ xᵢyᵢᵀ‖² over the rows that are not among ``rows`` (distinct numbers): the cost of the
    smaller part of G.

    Where ``rows`` are fewer than half, their part is subtracted from G in the dtype of the pair.
    """
    x, y = m.pair
    if 2 * rows.shape[0] <= m.n:
        return m.metric.norm_sq(m.G - x[rows].T @ y[rows])
    others = torch.ones(m.n, dtype=torch.bool, device=rows.device).index_fill_(0, rows, False)
    return m.metric.norm_sq(x[others].T @ y[others])
