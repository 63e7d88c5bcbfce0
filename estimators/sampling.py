"""Column-row sampling: keeps some rows of X as they are, scaled so that the estimate is
unbiased.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sketchvar.estimators.designs import (
    Sample,
    chance_to_meet,
    draw_from_groups,
    draw_independently,
)
from sketchvar.estimators.estimator import (
    SEED_BYTES,
    Compressed,
    KeepsRows,
    Traits,
    check_rate,
    kept_count,
)
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.norms import row_sq
from sketchvar.estimators.seeds import generator
from sketchvar.estimators.sketch import RowSketch

INDEX = torch.int32  # how the number of a row is kept


@dataclass(frozen=True)
class UniformRows(RowSketch[Int[Tensor, " k"]], KeepsRows):
    """Keeps k = rate · n rows chosen uniformly without replacement, or with it.

    S = √(n/k) times k unit vectors, distinct or independent, so E[SSᵀ] = I.
    Variance: (nD − C)(n − k) / (k(n − 1)), which is (n − k)/k times the minibatch variance by row:
    a smaller batch in row units, and so the baseline that every other estimator has to beat. With
    replacement (nD − C) / k.
    Bytes: k·p. Time: 2kpq.
    Use: as the baseline: what a smaller batch of tokens does.
    Source: Drineas, Kannan, Mahoney 2006, https://doi.org/10.1137/S0097539704442684 (column-row
    sampling).

    >>> UniformRows(rate=0.5).compress(torch.arange(4.0)[:, None], seed=0).tensors[0].T / 2**0.5
    tensor([[0., 1.]])
    """

    replacement: bool = False
    traits = Traits(skips_unseen=True)
    cut = staticmethod(Tensor.split)

    def draw(self, n: int, seed: int, device: torch.device) -> Int[Tensor, " k"]:
        g = generator(seed, device)
        return g.integers(n, self.k(n)) if self.replacement else g.sample(n, self.k(n))

    def apply(self, s: Int[Tensor, " k"], x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        weight = (x.shape[0] / max(self.k(x.shape[0]), 1)) ** 0.5
        if x.stride(0) == 1:  # columns of a matrix, four times as fast where they lie
            return x.T.index_select(1, s).mul_(weight).T
        return x.index_select(0, s).mul_(weight)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        k = max(self.k(m.n), 1)
        kept = 1.0 if self.replacement else (m.n - k) / max(m.n - 1, 1)
        return (m.n * m.D - m.C).clamp(min=0) * (kept / k)

    def weights_sq(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return torch.full_like(norms, norms.shape[0] / max(self.k(norms.shape[0]), 1))


@dataclass(frozen=True)
class SampledRows(KeepsRows):
    """Ĝ = Σ wᵢxᵢyᵢᵀ over rows chosen by looking at X: keeps k = max(1, round(rate · n)) rows wᵢxᵢ
    and their numbers.

    Splitting ``sample``, the only random step, from ``keep`` lets tests enumerate every outcome.
    """

    rate: float
    least: ClassVar[int] = 1  # rows that are kept at any rate

    def __post_init__(self) -> None:
        check_rate(self, self.rate)

    @abstractmethod
    def sample(self, norms: Float[Tensor, " n"], seed: int) -> Sample:
        """The rows to keep and their weights in float64, from the norms ‖xᵢ‖ in float64; NaN in,
        NaN weights out.
        """

    def k(self, n: int) -> int:
        """The number of rows kept of n."""
        return min(n, max(self.least, kept_count(self.rate, n)))

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
    """Keeps k rows chosen with unequal probabilities, each with its weight, and their numbers: one
    from each of k random groups (Rao, Hartley, Cochran), or with ``replacement``.

    Unbiased wherever πᵢ > 0 for every row with xᵢyᵢᵀ ≠ 0. Variance: f (Σ ‖xᵢ‖²‖yᵢ‖²/πᵢ − C), f =
    (n − k)/(k(n − 1)) where k divides n, the chance that two rows share a group; f = 1/k with
    replacement, which is never less.
    """

    replacement: bool = field(default=False, kw_only=True)

    @abstractmethod
    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """π from the norms ‖xᵢ‖ (float64). Sums to one; NaN where the norms are not finite, so that
        it shows.
        """

    def sample(self, norms: Float[Tensor, " n"], seed: int) -> Sample:
        pi, k = self.probabilities(norms), self.k(norms.shape[0])
        draw = draw_independently if self.replacement else draw_from_groups
        return draw(pi, k, generator(seed, pi.device))

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        terms = torch.where(m.rows_sq == 0, 0.0, m.rows_sq / self.probabilities(m.x_sq.sqrt()))
        return (terms.sum() - m.C).clamp(min=0) * self.factor(m.n)

    def weights_sq(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        pi, n = self.probabilities(norms), norms.shape[0]
        if self.replacement:
            return 1 / (pi * max(self.k(n), 1))
        return 1 + self.factor(n) * (1 / pi - 1)  # E P_g/πᵢ of the group that row i is in

    def factor(self, n: int) -> float:
        """f, what the design makes of Σ ‖xᵢ‖²‖yᵢ‖²/πᵢ − C."""
        k = self.k(n)
        return 1 / max(k, 1) if self.replacement else chance_to_meet(n, k)


@dataclass(frozen=True)
class NormRows(ImportanceRows):
    """Keeps k = rate · n rows, πᵢ ∝ ‖xᵢ‖: all that forward can know; one from each of k random
    groups, or with ``replacement``. A zero X falls back to uniform.

    Variance: f (Σ‖xᵢ‖ · Σ‖xᵢ‖‖yᵢ‖² − C), f as in ``ImportanceRows``: 0 at rate 1. Bytes: k(p + 4
    bytes of row number). Time: 2kpq and one read of X.
    Use: where rows of X vary much in size, and large ones meet no smaller rows of Y.
    Source: Drineas, Kannan, Mahoney 2006, https://doi.org/10.1137/S0097539704442684, §4, with ‖yᵢ‖
    unknown.
    """

    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return normalize(norms)


@dataclass(frozen=True, eq=False)
class ScoredRows(ImportanceRows):
    """Keeps k = rate · n rows, πᵢ = (1 − ε)‖xᵢ‖sᵢ/Σ‖x‖s + ε/n, for any scores sᵢ ≥ 0 and floor ε;
    one from each of k random groups, or with ``replacement``.

    ``scores`` (n) predict ‖yᵢ‖: from a padding mask, a running mean, an earlier step, or the
    sample's last epoch (``tell_samples``). The floor
    keeps the estimate unbiased whatever they are. Equal scores give ``NormRows`` with a floor;
    all-zero scores fall back to uniform rows. Without scores it is an oracle that waits for the
    true ‖yᵢ‖ (``tell``).
    Variance: f (Σ ‖xᵢ‖²‖yᵢ‖²/πᵢ − C). Bytes and time as ``NormRows``. Made with one device
    synchronisation.
    Use: where the gradient sits on rows that can be foreseen: padding, first tokens, hard
    samples.
    Raises: ValueError unless 0 < floor <= 1 and the scores are one for each row, none below zero.
    Source: Katharopoulos and Fleuret 2018, https://arxiv.org/abs/1803.00942, who predict it for
    examples.
    """

    scores: Float[Tensor, " n"] | None = field(default=None, repr=False)
    floor: float = 0.1

    @property
    def traits(self) -> Traits:  # type: ignore[override]  # an oracle only while it waits
        return Traits(oracle=self.scores is None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.floor <= 1:
            raise ValueError(
                f"ScoredRows needs 0 < floor <= 1, got floor={self.floor}; without a floor a wrong"
                " score biases it"
            )
        if self.scores is None:
            return
        if self.scores.ndim != 1 or bool((self.scores < 0).any()):
            raise ValueError(
                f"ScoredRows needs one score >= 0 per row, got shape {tuple(self.scores.shape)}, "
                f"least {self.scores.min().item() if self.scores.numel() else None}"
            )

    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        scored = normalize(norms * match_rows(self, self.scores, norms))
        return (1 - self.floor) * scored + self.floor / max(norms.shape[0], 1)


@dataclass(frozen=True, eq=False)
class OptimalRows(ImportanceRows):
    """The oracle of ``ScoredRows``: k = rate · n rows, πᵢ ∝ ‖xᵢ‖‖yᵢ‖, the least variance of any π,
    in groups or with ``replacement``. Needs ‖yᵢ‖² in advance.

    ``y_sq`` (n) holds ‖yᵢ‖²; without it, it waits for them (``tell``). Variance: f (L² − C) when
    ``y_sq`` is the truth. Bytes and time as ``NormRows``.
    Use: as the bound of what sampling rows can do; no layer can.
    Source: Drineas, Kannan, Mahoney 2006, https://doi.org/10.1137/S0097539704442684, Lemma 4.
    """

    y_sq: Float[Tensor, " n"] | None = field(default=None, repr=False)
    traits = Traits(oracle=True)

    def probabilities(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return normalize(norms * match_rows(self, self.y_sq, norms).sqrt())


def match_rows(
    estimator: object, known: Float[Tensor, " m"] | None, norms: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """What was ``known`` of each row in advance, in float64; ValueError unless it is of these
    rows.
    """
    name = type(estimator).__name__
    if known is None:
        raise ValueError(
            f"{name} is an oracle that has not been told of Y; give it the squared row norms of"
            " this Y, as in tell(estimator, y.square().sum(1))"
        )
    known = torch.as_tensor(known)
    if known.shape != norms.shape:
        raise ValueError(
            f"{name} was built for {known.shape[0]} rows and met {norms.shape[0]}; "
            "what it knows of the rows of one Y serves that Y only: build it again for this one"
        )
    return known.to(norms.device, torch.float64)


def normalize(scores: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Scores divided by their sum; uniform where all are zero, NaN where the sum is not finite. No
    device sync.
    """
    total = scores.sum()
    return torch.where(total == 0, 1 / max(scores.shape[0], 1), scores / total + 0 * total)
