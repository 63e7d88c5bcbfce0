"""PriorityRows: sampling without replacement, as good as a coin for each row, at a fixed size."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.designs import Sample
from sketchvar.estimators.estimator import Traits
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.sampling import SampledRows
from sketchvar.estimators.seeds import generator

MOST_ROWS = 64  # for the closed form, whose time grows as n³
NODES = 24  # of the quadrature in each piece


@dataclass(frozen=True)
class PriorityRows(SampledRows):
    """Keeps the k = rate · n rows of largest ‖xᵢ‖/uᵢ, uᵢ uniform in (0, 1], each times max(1,
    τ/‖xᵢ‖), τ the largest ‖xⱼ‖/uⱼ left out.

    Given τᵢ, the k-th largest of the others, row i is kept with probability min(1, ‖xᵢ‖/τᵢ), the
    inverse of its weight; weights of two rows are uncorrelated. At least two rows are kept: of one
    alone the variance is infinite.
    Variance: Σ ‖xᵢ‖²‖yᵢ‖² E max(0, τᵢ/‖xᵢ‖ − 1), about that of ``BernoulliRows`` at a fixed size.
    It is a quadrature for at most 64 rows; else measure it by
    ``empirical``. Bytes and time as ``NormRows``, and one selection of the k + 1 largest.
    Use: for the variance of BernoulliRows at a fixed size.
    Source: Duffield, Lund, Thorup 2007, https://doi.org/10.1145/1314690.1314696; for products
    Daliri et al. 2025, https://arxiv.org/abs/2501.17836.
    """

    least = 2
    traits = Traits(no_closed_form=True)

    def sample(self, norms: Float[Tensor, " n"], seed: int) -> Sample:
        n, k = norms.shape[0], self.k(norms.shape[0])
        if k == n:
            return Sample(torch.arange(n, device=norms.device), torch.ones_like(norms))
        uniform = generator(seed, norms.device).uniforms(n)
        largest, rows = (norms / uniform).topk(k + 1)
        kept = norms[rows[:k]]
        weights = torch.where(kept < largest[-1], largest[-1] / kept, 1.0)
        return Sample(rows[:k], torch.where(kept == 0, 1.0, weights))

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        lost = m.rows_sq * self.excess(m.x_sq.sqrt())
        return torch.where(m.rows_sq == 0, 0.0, lost).sum()

    def weights_sq(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return 1 + self.excess(norms)

    def excess(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """E max(0, τᵢ/‖xᵢ‖ − 1), from the ``norms`` ‖xᵢ‖: what the square of a row's weight is
        above one in the mean.

        Raises NotImplementedError for more than 64 rows.
        """
        n, k = norms.shape[0], self.k(norms.shape[0])
        if k == n:
            return torch.zeros_like(norms)
        if n > MOST_ROWS:
            raise NotImplementedError(
                f"the variance of {self} is a quadrature, too slow for {n} > {MOST_ROWS} rows;"
                " measure it by empirical(estimator, x, y, draws, seed)"
            )
        some = norms > 0
        return torch.full_like(norms, torch.inf).masked_scatter(
            some, expected_excess(norms[some], k)
        )


def expected_excess(w: Float[Tensor, " n"], k: int) -> Float[Tensor, " n"]:
    """E max(0, τᵢ/wᵢ − 1) for weights w > 0 in float64, τᵢ the k-th largest of wⱼ/uⱼ, j ≠ i, and
    2 ≤ k (for k = 1 < n it is infinite).

    It is ∫_{wᵢ}^∞ P(τᵢ > t) dt / wᵢ, and τᵢ > t where k of the others pass t, each with probability
    min(1, wⱼ/t): a Poisson–binomial tail, by its characteristic function at an odd number of roots
    of unity, where no factor is zero. In s = 1/t the tail is a polynomial between neighbouring
    1/wⱼ: Gauss–Legendre there.
    """
    n, excess = w.shape[0], torch.zeros_like(w)
    if n <= k:
        return excess
    nodes, sizes = gauss_legendre(NODES, w.device)
    roots = n + 1 + n % 2
    angle = torch.arange(roots, dtype=torch.float64, device=w.device) * (2 * torch.pi / roots)
    z = torch.polar(torch.ones_like(angle), angle)
    # of the probabilities of k, k + 1, ... n − 1 in the characteristic function
    tail = z.conj()[:, None].pow(torch.arange(k, n, device=w.device)).sum(1) / roots
    ends = torch.cat([w.new_zeros(1), (1 / w).sort().values]).tolist()  # of s
    for low, high in pairwise(ends):
        s = low + (high - low) * nodes
        passes = (s[:, None] * w).clamp(max=1)
        factors = 1 + passes[:, :, None] * (z - 1)  # nodes × rows × roots
        below = w * (low + high) < 2  # rows with wᵢ < t in all of this piece
        others = factors.prod(1, keepdim=True) / torch.where(below[:, None], factors, 1.0)
        chance = (others @ tail).real
        excess += torch.where(below, (high - low) * (sizes / s.square()) @ chance, 0.0)
    return excess / w


def gauss_legendre(
    count: int, device: torch.device
) -> tuple[Float[Tensor, " count"], Float[Tensor, " count"]]:
    """Nodes in (0, 1) and weights of the Gauss–Legendre rule (Golub, Welsch 1969)."""
    i = torch.arange(1, count, dtype=torch.float64)
    off = i / (4 * i.square() - 1).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return ((values + 1) / 2).to(device), vectors[0].square().to(device)
