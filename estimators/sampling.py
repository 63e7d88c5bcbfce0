"""Column-row sampling: keeps some rows of X as they are, scaled so that the estimate is
unbiased.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sketchvar.estimators.estimator import (
    SEED_BYTES,
    Compressed,
    KeepsRows,
    Traits,
    check_rate,
    kept_count,
)
from sketchvar.estimators.moments import Moments, row_sq
from sketchvar.estimators.seeds import generator
from sketchvar.estimators.sketch import RowSketch

INDEX = torch.int32  # how the number of a row is kept


@dataclass(frozen=True)
class UniformRows(RowSketch[Int[Tensor, " k"]], KeepsRows):
    """Keeps k rows chosen uniformly without replacement, or with it.

    S = √(n/k) times k unit vectors, distinct or independent, so E[SSᵀ] = I.
    Variance: (nD − C)(n − k) / (k(n − 1)), which is (n − k)/k times the minibatch variance by row:
    a smaller batch in row units, and so the baseline that every other estimator has to beat. With
    replacement (nD − C) / k.
    Bytes: k·p. Time: 2kpq.
    Source: Drineas, Kannan, Mahoney 2006, https://doi.org/10.1137/S0097539704442684 (column-row
    sampling).
    """

    replacement: bool = False
    traits = Traits(skips_unseen=True)
    cut = staticmethod(Tensor.split)

    def draw(self, n: int, seed: int, device: torch.device) -> Int[Tensor, " k"]:
        g = generator(seed, device)
        return g.integers(n, self.k(n)) if self.replacement else g.sample(n, self.k(n))

    def apply(self, s: Int[Tensor, " k"], x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        return x.index_select(0, s).mul_((x.shape[0] / max(self.k(x.shape[0]), 1)) ** 0.5)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        k = max(self.k(m.n), 1)
        kept = 1.0 if self.replacement else (m.n - k) / max(m.n - 1, 1)
        return (m.n * m.D - m.C).clamp(min=0) * (kept / k)

    def weights_sq(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return torch.full_like(norms, norms.shape[0] / max(self.k(norms.shape[0]), 1))


class Sample(NamedTuple):
    """Which rows are kept, and what each is multiplied by."""

    rows: Int[Tensor, " k"]
    weights: Float[Tensor, " k"]


@dataclass(frozen=True)
class SampledRows(KeepsRows):
    """Ĝ = Σ wᵢxᵢyᵢᵀ over rows chosen by looking at X: keeps k = max(1, round(rate · n)) rows wᵢxᵢ
    and their numbers.

    Splitting ``sample``, the only random step, from ``keep`` lets tests enumerate every outcome.
    """

    rate: float

    def __post_init__(self) -> None:
        check_rate(self, self.rate)

    @abstractmethod
    def sample(self, norms: Float[Tensor, " n"], seed: int) -> Sample:
        """The rows to keep and their weights in float64, from the norms ‖xᵢ‖ in float64; NaN in,
        NaN weights out.
        """

    def k(self, n: int) -> int:
        """The number of rows kept of n."""
        return kept_count(self.rate, n)

    def keep(self, x: Float[Tensor, "n p"], sample: Sample, seed: int) -> Compressed:
        """What is kept of X once the rows are chosen; the weights are taken in float64 and rounded
        once.
        """
        weighted = (x[sample.rows] * sample.weights[:, None]).to(x.dtype)
        return Compressed(seed, (x.shape[0], x.shape[1]), (weighted, sample.rows.to(INDEX)))

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        return self.keep(x, self.sample(row_sq(x).sqrt(), seed), seed)

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        weighted, rows = kept.tensors
        return (y.index_select(0, rows).T @ weighted).T  # in the layout of a weight

    def kept_shape(self, n: int, p: int) -> tuple[int, int]:
        return self.k(n), p

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return SEED_BYTES + self.k(n) * (p * dtype.itemsize + INDEX.itemsize)


@dataclass(frozen=True)
class ImportanceRows(SampledRows):
    """Keeps k rows drawn independently with probabilities πᵢ, each divided by kπᵢ, and their
    numbers.

    Unbiased wherever πᵢ > 0 for every row with xᵢyᵢᵀ ≠ 0. Variance: (Σ ‖xᵢ‖²‖yᵢ‖²/πᵢ − C) / k.
    """

    @abstractmethod
    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """π from the norms ‖xᵢ‖ (float64). Sums to one; NaN where the norms are not finite, so that
        it shows.
        """

    def sample(self, norms: Float[Tensor, " n"], seed: int) -> Sample:
        pi, k = self.probabilities(norms), self.k(norms.shape[0])
        rows = generator(seed, pi.device).choices(pi, k)
        return Sample(rows, 1 / (k * pi[rows]))

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        products = m.x_sq * m.y_sq
        terms = torch.where(products == 0, 0.0, products / self.probabilities(m.x_sq.sqrt()))
        return (terms.sum() - m.C).clamp(min=0) / max(self.k(m.n), 1)

    def weights_sq(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return 1 / (self.probabilities(norms) * max(self.k(norms.shape[0]), 1))


@dataclass(frozen=True)
class NormRows(ImportanceRows):
    """Keeps k rows drawn with replacement, πᵢ ∝ ‖xᵢ‖: all that forward can know. A zero X falls
    back to uniform.

    Variance: (Σ‖xᵢ‖ · Σ‖xᵢ‖‖yᵢ‖² − C) / k. Bytes: k(p + 4 bytes of row number). Time: 2kpq and one
    read of X.
    Source: Drineas, Kannan, Mahoney 2006, https://doi.org/10.1137/S0097539704442684, §4, with ‖yᵢ‖
    unknown.
    """

    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return normalized(norms)


@dataclass(frozen=True, eq=False)
class ScoredRows(ImportanceRows):
    """Keeps k rows drawn with replacement, πᵢ = (1 − ε)‖xᵢ‖sᵢ/Σ‖x‖s + ε/n, for any scores sᵢ ≥ 0
    and floor ε.

    ``scores`` (n) predict ‖yᵢ‖: from a padding mask, a running mean, an earlier step. The floor
    keeps the estimate unbiased whatever they are. Equal scores give ``NormRows`` with a floor;
    all-zero scores fall back to uniform rows.
    Variance: (Σ ‖xᵢ‖²‖yᵢ‖²/πᵢ − C) / k. Bytes and time as ``NormRows``. Made with one device
    synchronisation.
    Source: Katharopoulos and Fleuret 2018, https://arxiv.org/abs/1803.00942, who predict it for
    examples.
    """

    scores: Float[Tensor, " n"]
    floor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.floor <= 1:
            raise ValueError(
                f"ScoredRows needs 0 < floor <= 1, got floor={self.floor}; without a floor a wrong"
                " score biases it"
            )
        if self.scores.ndim != 1 or bool((self.scores < 0).any()):
            raise ValueError(
                f"ScoredRows needs one score >= 0 per row, got shape {tuple(self.scores.shape)}, "
                f"least {self.scores.min().item() if self.scores.numel() else None}"
            )

    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        scored = normalized(norms * for_rows(self, self.scores, norms))
        return (1 - self.floor) * scored + self.floor / max(norms.shape[0], 1)


@dataclass(frozen=True, eq=False)
class OptimalRows(ImportanceRows):
    """The oracle of ``ScoredRows``: πᵢ ∝ ‖xᵢ‖‖yᵢ‖, the least variance of any π. Needs ‖yᵢ‖² in
    advance.

    ``y_sq`` (n) holds ‖yᵢ‖². Variance: (L² − C) / k when ``y_sq`` is the truth. Bytes and time as
    ``NormRows``.
    Source: Drineas, Kannan, Mahoney 2006, https://doi.org/10.1137/S0097539704442684, Lemma 4.
    """

    y_sq: Float[Tensor, " n"]
    traits = Traits(oracle=True)

    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return normalized(norms * for_rows(self, self.y_sq, norms).sqrt())


def for_rows(
    estimator: object, known: Float[Tensor, " m"], norms: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """What was ``known`` of each row in advance, in float64; ValueError unless it is of these
    rows.
    """
    known = torch.as_tensor(known)
    if known.shape != norms.shape:
        name = type(estimator).__name__
        raise ValueError(
            f"{name} was built for {known.shape[0]} rows and met {norms.shape[0]}; "
            "what it knows of the rows of one Y serves that Y only: build it again for this one"
        )
    return known.to(norms.device, torch.float64)


def normalized(scores: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Scores divided by their sum; uniform where all are zero, NaN where the sum is not finite. No
    device sync.
    """
    total = scores.sum()
    return torch.where(total == 0, 1 / max(scores.shape[0], 1), scores / total + 0 * total)
