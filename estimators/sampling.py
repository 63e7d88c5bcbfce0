"""Column-row sampling: keeps some rows of X as they are, scaled so that the estimate is unbiased."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from estimators.estimator import SEED_BYTES, Compressed, Estimator, check_rate, kept_count
from estimators.moments import Moments, row_sq
from estimators.seeds import generator
from estimators.sketch import BlockSketch

INDEX = torch.int32  # how the number of a row is kept


@dataclass(frozen=True)
class UniformRows(BlockSketch[Int[Tensor, " k"]]):
    """Keeps k rows chosen uniformly without replacement.

    S = √(n/k) times k distinct unit vectors, so E[SSᵀ] = I.
    Variance: (nD − C)(n − k) / (k(n − 1)), which is (n − k)/k times the minibatch variance by row: a smaller batch in
    row units, and so the baseline that every other estimator has to beat. Bytes: k·p. Time: 2kpq.
    Source: Drineas, Kannan, Mahoney 2006, https://doi.org/10.1137/S0097539704442684 (column-row sampling).
    """

    def draw(self, n: int, seed: int, device: torch.device) -> Int[Tensor, " k"]:
        return torch.randperm(n, generator=generator(seed, device), device=device)[: self.k(n)]

    def apply(self, s: Int[Tensor, " k"], x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        return x.index_select(0, s).mul_((x.shape[0] / max(self.k(x.shape[0]), 1)) ** 0.5)

    def blocks(self, s: Int[Tensor, " k"], size: int) -> Iterator[Int[Tensor, " size"]]:
        yield from s.split(size)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        k = max(self.k(m.n), 1)
        return (m.n * m.D - m.C) * ((m.n - k) / (k * max(m.n - 1, 1)))


@dataclass(frozen=True)
class ImportanceRows(Estimator):
    """Keeps k rows drawn independently with probabilities πᵢ, each divided by kπᵢ, and their numbers.

    Ĝ = Σ over the draws of xᵢyᵢᵀ / (kπᵢ): unbiased wherever πᵢ > 0 for every row with xᵢyᵢᵀ ≠ 0.
    Variance: (Σ ‖xᵢ‖²‖yᵢ‖²/πᵢ − C) / k.
    """

    @abstractmethod
    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """π from the norms ‖xᵢ‖ (float64). Sums to one; NaN where the norms are not finite, so that it shows."""

    @property
    @abstractmethod
    def kept_fraction(self) -> float:
        """The rate: k = max(1, round(rate · n))."""

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        n, p = x.shape
        k = kept_count(self.kept_fraction, n)
        pi = self.probabilities(row_sq(x).sqrt())
        rows = choose(pi, k, seed)
        weights = 1 / (k * pi[rows])
        return Compressed(seed, (n, p), ((x[rows] * weights[:, None]).to(x.dtype), rows.to(INDEX)))

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        weighted, rows = kept.tensors
        return weighted.T @ y.index_select(0, rows)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        k = max(kept_count(self.kept_fraction, m.n), 1)
        products = m.x_sq * m.y_sq
        terms = torch.where(products == 0, 0.0, products / self.probabilities(m.x_sq.sqrt()))
        return (terms.sum() - m.C * (m.n > 0)) / k

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return SEED_BYTES + kept_count(self.kept_fraction, n) * (p * dtype.itemsize + INDEX.itemsize)


@dataclass(frozen=True)
class NormRows(ImportanceRows):
    """Keeps k rows drawn with replacement, πᵢ ∝ ‖xᵢ‖: all that forward can know. A zero X falls back to uniform.

    Variance: (Σ‖xᵢ‖ · Σ‖xᵢ‖‖yᵢ‖² − C) / k. Bytes: k(p + 4 bytes of row number). Time: 2kpq and one read of X.
    Source: Drineas, Kannan, Mahoney 2006, https://doi.org/10.1137/S0097539704442684, §4, with ‖yᵢ‖ unknown.
    """

    rate: float

    def __post_init__(self) -> None:
        check_rate(self, self.rate)

    @property
    def kept_fraction(self) -> float:
        return self.rate

    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return normalized(norms)


@dataclass(frozen=True, eq=False)
class OptimalRows(ImportanceRows):
    """The oracle: k rows drawn with replacement, πᵢ ∝ ‖xᵢ‖‖yᵢ‖, the least variance of any π. Needs ‖yᵢ‖² in advance.

    ``y_sq`` (n) holds ‖yᵢ‖². Variance: (L² − C) / k when ``y_sq`` is the truth. Bytes and time as ``NormRows``.
    Source: Drineas, Kannan, Mahoney 2006, https://doi.org/10.1137/S0097539704442684, Lemma 4.
    """

    rate: float
    y_sq: Float[Tensor, " n"]

    def __post_init__(self) -> None:
        check_rate(self, self.rate)

    @property
    def kept_fraction(self) -> float:
        return self.rate

    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        if self.y_sq.shape != norms.shape:
            raise ValueError(
                f"OptimalRows was built for {self.y_sq.shape[0]} rows and met {norms.shape[0]}; "
                "an oracle serves one Y only: build it again with y_sq of this one"
            )
        return normalized(norms * self.y_sq.to(norms.device, torch.float64).sqrt())


def normalized(scores: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Scores divided by their sum; uniform where all are zero. No device synchronisation."""
    total = scores.sum()
    return torch.where(total == 0, 1 / max(scores.shape[0], 1), scores / total)


def choose(pi: Float[Tensor, " n"], k: int, seed: int) -> Int[Tensor, " k"]:
    """k row numbers drawn independently with probabilities π by inverting their cumulative sum.

    Unlike torch.multinomial it takes any n, never raises on NaN (which then shows in the estimate) and never
    synchronises the device; a row with πᵢ = 0 is never chosen.
    """
    edges = pi.cumsum(0)
    u = torch.rand(k, generator=generator(seed, pi.device), device=pi.device, dtype=torch.float64)
    total = edges[-1:]
    u = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(edges, u, right=True).clamp_(max=max(pi.shape[0] - 1, 0))
