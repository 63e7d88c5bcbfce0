"""Estimators made of estimators: Centered(inner) and Then(first, second)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.estimator import (
    SEED_BYTES,
    Compressed,
    Estimator,
    KeepsMatrix,
    KeepsRows,
    TakesMean,
    Traits,
)
from sketchvar.estimators.exact import Exact
from sketchvar.estimators.moments import CHUNK, Moments
from sketchvar.estimators.norms import center, column_mean, row_sq
from sketchvar.estimators.quantize import StochasticRounding
from sketchvar.estimators.seeds import fold


@dataclass(frozen=True)
class Centered(Estimator):
    """Keeps the mean row x̄ and what ``inner`` keeps of X − 1x̄ᵀ: a control variate that costs one
    row.

    XᵀY = n x̄ȳᵀ + (X − 1x̄ᵀ)ᵀ(Y − 1ȳᵀ) with ȳ the mean row of Y; the first term is exact, ``inner``
    estimates the other.
    Variance: that of ``inner`` on the centred pair; far less where the rows share a large mean.
    Bytes: those of ``inner`` and p in float32 (float64 for such an X). Time: that of ``inner`` and
    reads of X and Y.
    Use: around any sketch or rounding of activations, which share a mean; it costs one row.
    Raises: TypeError for an ``inner`` that is no estimator, ValueError for a biased one and for one
    that leaves nothing to centre.
    Source: derived in this project; a control variate as in Owen 2013,
    https://artowen.su.domains/mc/, §8.9.

    >>> from sketchvar.estimators import CountSketch
    >>> m = Moments.of(torch.ones(8, 3), torch.rand(8, 2))  # rows that are all their mean
    >>> Centered(CountSketch(0.25)).variance(m)
    tensor(0., dtype=torch.float64)
    """

    inner: Estimator

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Estimator):
            raise TypeError(
                f"Centered needs an estimator, as in Centered(CountSketch(0.1)), got {self.inner!r}"
            )
        if isinstance(self.inner, Exact | Centered):
            raise ValueError(
                f"Centered({self.inner}) makes no sense: there is nothing left to centre; use"
                f" {self.inner}"
            )
        refuse_biased("Centered", self.inner)

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """Those of ``inner``; the mean needs the pair and sees every row."""
        inner = self.inner.traits
        return inner._replace(needs_pair=True, skips_unseen=False, row_by_row=False)

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        mean = column_mean(x)
        if isinstance(self.inner, TakesMean):
            kept = self.inner.compress_about(x, seed, mean)
        else:
            kept = self.inner.compress(center(x, mean), seed)
        return kept._replace(tensors=(mean, *kept.tensors))

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        x_mean, y_mean = kept.tensors[0], column_mean(y)
        kept = kept._replace(tensors=kept.tensors[1:])
        if isinstance(self.inner, TakesMean):
            rest = self.inner.contract_about(kept, y, y_mean)
        else:
            rest = self.inner.contract(kept, center(y, y_mean))
        return (torch.outer(y_mean, y.shape[0] * x_mean) + rest.T).to(y.dtype).T

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        return self.inner.variance(center_moments(m))

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return self.inner.kept_bytes(n, p, dtype) + p * max(dtype.itemsize, 4)


@dataclass(frozen=True)
class Then(Estimator):
    """Keeps what ``first`` keeps, its matrix rounded by ``second``: a sketch, a sample or a
    projection in few bits.

    Unbiased, because contracting is linear in that matrix and rounding is unbiased. Groups are of
    the matrix's columns.
    ``Then(FeatureProjection(1 / 8), StochasticRounding(2))`` is EXACT.
    Variance: Var(first) + E[Σ_r ‖w_r‖² Σ_j Δ²f(1 − f)] over the rows r of the matrix and what
    multiplies them, w. Where ``first`` keeps rows of X (``KeepsRows``) that is Var(first) + Σᵢ
    hᵢ‖yᵢ‖² Σⱼ Δ²f(1 − f) over the rows of X, hᵢ the expected square of a row's weight, because the
    grid grows with the weight; else there is no closed form.
    Bytes: those of ``first`` with its matrix in ``bits`` and a header for each group. Time: that of
    both.
    Use: to keep more rows, or features, for the same bytes.
    Raises: ValueError for a ``first`` that keeps no matrix or is biased, and for a ``second``
    that is no rounding.
    Source: Liu et al. 2022 (EXACT), https://openreview.net/forum?id=vkaMaq95_rX.
    """

    first: KeepsMatrix
    second: StochasticRounding

    def __post_init__(self) -> None:
        check_then(self.first, self.second)

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """Those of ``first`` and of rounding, which has a closed form for rows only."""
        first = self.first.traits
        open_ = first.no_closed_form or not isinstance(self.first, KeepsRows)
        return first._replace(needs_pair=True, basis_matters=True, no_closed_form=open_)

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        kept = self.first.compress(x, seed)
        rounded = self.second.compress(kept.tensors[0], fold(seed, "rounding"))
        return kept._replace(tensors=rounded.tensors + kept.tensors[1:])

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        packed = kept.tensors[0]
        columns = self.first.kept_shape(*kept.shape)[1]
        rounded = Compressed(kept.seed, (packed.shape[0], columns), kept.tensors[:3])
        first, *rest = (
            self.first.contract(kept._replace(tensors=(matrix, *kept.tensors[3:])), y)
            for matrix in self.second.parts(rounded, y.dtype)
        )
        return sum(rest, first)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        if not isinstance(self.first, KeepsRows):
            raise NotImplementedError(
                f"{self} has no closed form of its variance; measure it by empirical(estimator, x,"
                " y, draws, seed)"
            )
        each = self.second.expected_errors(m)
        rounding = torch.where(each == 0, 0.0, each * self.first.weights_sq(m.x_sq.sqrt())).sum()
        return self.first.variance(m) + rounding

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        rows, columns = self.first.kept_shape(n, p)
        rest = self.first.kept_bytes(n, p, dtype) - rows * columns * dtype.itemsize
        return rest + self.second.kept_bytes(rows, columns, dtype) - SEED_BYTES


# Less than this part of C is left by subtracting n x̄ȳᵀ from G in float32: half of its seven digits
# are gone then, and C is formed anew from the centred pair.
DIGITS_LEFT = 1e-6


def center_moments(m: Moments) -> Moments:
    """Moments of (X − 1x̄ᵀ, Y − 1ȳᵀ), subtracted before anything is squared, so that a large mean
    costs no digits.

    The centred pair is made anew for each statistic that needs it, and not kept.
    """

    def make() -> Moments:
        x, y = m.pair
        x_mean, y_mean = column_mean(x), column_mean(y)
        x_sq, y_sq = (
            torch.cat([row_sq(rows - mean) for rows in t.split(CHUNK)])
            for t, mean in ((x, x_mean), (y, y_mean))
        )
        left = m.metric.norm_sq(m.G - torch.outer(m.n * x_mean, y_mean))
        C = left if left > DIGITS_LEFT * m.C else None
        return Moments(m.p, m.q, x_sq, y_sq, C, lambda: (x - x_mean, y - y_mean), m.metric)

    return m.once("centered", make)


def check_then(first: Estimator, second: Estimator) -> None:
    """Raise ValueError unless ``Then(first, second)`` makes sense."""
    if not isinstance(second, StochasticRounding):
        raise ValueError(
            "Then needs StochasticRounding second, as in Then(CountSketch(0.1),"
            f" StochasticRounding(4)), got {second}; a sketch of a sketch is a worse sketch of the"
            " same size"
        )
    if not isinstance(first, KeepsMatrix):
        hint = "; centre first, as in Centered(Then(CountSketch(0.1), StochasticRounding(4)))"
        raise ValueError(
            "Then needs first an estimator that keeps one matrix to round: a row sketch, sampled"
            " rows, a feature projection or Exact; got"
            f" {first}{hint if isinstance(first, Centered) else ''}"
        )
    refuse_biased("Then", first)


def refuse_biased(outer: str, inner: Estimator) -> None:
    """Raise ValueError where ``inner`` is biased: what is made of it would be neither that nor
    unbiased.
    """
    if inner.traits.biased:
        raise ValueError(f"{outer} needs an unbiased estimator inside, got {inner}")


def innermost(estimator: Estimator) -> Estimator:
    """Find the estimator that sees X first, inside ``Centered`` and ``Then``."""
    match estimator:
        case Centered():
            return innermost(estimator.inner)
        case Then():
            return innermost(estimator.first)
    return estimator


def change_innermost(estimator: Estimator, change: Callable[[Estimator], Estimator]) -> Estimator:
    """Rebuild an estimator with ``change`` made to its ``innermost``."""
    match estimator:
        case Centered():
            return replace(estimator, inner=change_innermost(estimator.inner, change))
        case Then():
            first = change_innermost(estimator.first, change)
            return replace(estimator, first=first)  # type: ignore[arg-type]  # checked by Then
    return change(estimator)
