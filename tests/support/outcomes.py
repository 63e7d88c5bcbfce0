"""Every outcome of an estimator on a small pair: (probability, Ĝ), whose sums are its exact mean
and variance.
"""

from collections.abc import Iterator
from itertools import chain, combinations, permutations, product
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from sketchvar.estimators import (
    SRHT,
    BernoulliRows,
    Compressed,
    CountSketch,
    FeatureProjection,
    GridRounding,
    Rademacher,
    SparseSign,
    StochasticRounding,
    SubsampledDCT,
    TopRows,
    UniformRows,
    WinnerTakeAllRows,
)
from sketchvar.estimators.countsketch import Buckets, grouped
from sketchvar.estimators.kernels.hadamard import padded
from sketchvar.estimators.orthogonal import SignedRows
from sketchvar.estimators.sampling import ImportanceRows, Sample
from sketchvar.estimators.seeds import Generator

CPU = torch.device("cpu")


def every_sign(count: int) -> Iterator[Tensor]:
    """All 2^count vectors of ±1."""
    return (torch.tensor(s) for s in product((-1.0, 1.0), repeat=count))


def draws(estimator: Any, n: int) -> list[Any]:
    """Every S that a row sketch can draw for n rows; all are equally likely."""
    match estimator:
        case Rademacher():
            k = estimator.k(n)
            return [s.view(n, k) for s in every_sign(n * k)]
        case CountSketch(balanced=False):
            return [
                grouped(torch.tensor(buckets), estimator.k(n), s)
                for buckets in product(range(estimator.k(n)), repeat=n)
                for s in every_sign(n)
            ]
        case SparseSign():
            k = estimator.k(n)
            s = min(estimator.nonzeros, k)
            entries = [
                grouped(torch.tensor(list(chain(*rows))), k, signs)
                for rows in product(combinations(range(k), s), repeat=n)
                for signs in every_sign(n * s)
            ]
            return [e._replace(order=e.order // s) for e in entries]
        case CountSketch():
            offsets = estimator.draw(n, 0, CPU).offsets
            orders = [torch.tensor(o, dtype=torch.int32) for o in permutations(range(n))]
            return [Buckets(order, offsets, s) for order in orders for s in every_sign(n)]
        case SRHT() | SubsampledDCT():
            size, k = padded(n) if isinstance(estimator, SRHT) else n, estimator.k(n)
            chosen = (
                product(range(size), repeat=k)
                if estimator.replacement
                else combinations(range(size), k)
            )
            subsets = [torch.tensor(rows) for rows in chosen]
            return [SignedRows(s, rows) for rows in subsets for s in every_sign(n)]
        case UniformRows(replacement=True):
            return [torch.tensor(rows) for rows in product(range(n), repeat=estimator.k(n))]
        case UniformRows():
            return [torch.tensor(rows) for rows in permutations(range(n), estimator.k(n))]
    raise TypeError(f"no enumeration for {estimator}")


def outcomes(estimator: Any, x: Tensor, y: Tensor) -> Iterator[tuple[float, Tensor]]:
    """(probability, Ĝ) for every outcome. Row sketches go through ``apply``, samplers through both
    of their phases.
    """
    if isinstance(estimator, ImportanceRows) and not estimator.replacement:
        yield from from_groups(estimator, x, y)
        return
    if isinstance(estimator, ImportanceRows):
        yield from sampled(estimator, x, y)
        return
    match estimator:
        case BernoulliRows():
            yield from coins(estimator, x, y)
            return
        case WinnerTakeAllRows():
            yield from from_groups(estimator, x, y)
            return
        case TopRows():
            yield 1.0, estimator.contract(estimator.compress(x, 0), y)
            return
        case FeatureProjection():
            every = draws(estimator.sketch, x.shape[1])
            for r in every:
                with patch.object(type(estimator.sketch), "draw", return_value=r):
                    yield 1 / len(every), estimator.contract(estimator.compress(x, 0), y)
            return
        case GridRounding():
            yield from flips(estimator, x, y)
            return
        case StochasticRounding():
            yield from roundings(estimator, x, y)
            return
    every = draws(estimator, x.shape[0])
    for s in every:
        yield 1 / len(every), estimator.apply(s, x).T @ estimator.apply(s, y)


def sampled(estimator: ImportanceRows, x: Tensor, y: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Every k-tuple of rows of positive probability, put in the place of the random choice."""
    pi = estimator.probabilities(x.norm(dim=1))
    for rows in product(range(x.shape[0]), repeat=estimator.k(x.shape[0])):
        probability = pi[list(rows)].prod().item()
        if probability > 0:
            with patch.object(Generator, "choices", return_value=torch.tensor(rows)):
                kept: Compressed = estimator.compress(x, 0)
            yield probability, estimator.contract(kept, y)


def coins(estimator: BernoulliRows, x: Tensor, y: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Every subset of the rows."""
    pi = estimator.inclusion(x.norm(dim=1))
    for kept in product((False, True), repeat=x.shape[0]):
        rows = torch.tensor(kept).nonzero()[:, 0]
        probability = torch.where(torch.tensor(kept), pi, 1 - pi).prod().item()
        if probability > 0:
            yield (
                probability,
                estimator.contract(estimator.keep(x, Sample(rows, 1 / pi[rows]), 0), y),
            )


def from_groups(estimator: Any, x: Tensor, y: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Every partition into groups and every row of positive probability of each."""
    orders, shares = [torch.arange(0)], [torch.ones(0, 0)]

    def permutation(*_) -> Tensor:
        return orders[0]

    def look(_, weights: Tensor) -> Tensor:
        first = torch.zeros_like(weights).index_fill_(1, torch.tensor([0]), 1.0)
        total = weights.sum(1, keepdim=True)
        shares[0] = torch.where(total == 0, first, weights / total)
        return torch.zeros(len(weights), dtype=torch.int64)

    drawn = x.shape[0]
    if isinstance(estimator, WinnerTakeAllRows):
        drawn -= estimator.split(x.norm(dim=1))[1]
    every = list(permutations(range(drawn)))
    for order in every:
        orders[0] = torch.tensor(order)
        with (
            patch.object(Generator, "permutation", permutation),
            patch.object(Generator, "choose_columns", look),
        ):
            estimator.compress(x, 0)
        for columns in product(*(row.nonzero()[:, 0].tolist() for row in shares[0])):
            probability = shares[0][range(len(columns)), columns].prod().item()
            chosen = torch.tensor(columns, dtype=torch.int64)
            with (
                patch.object(Generator, "permutation", permutation),
                patch.object(Generator, "choose_columns", return_value=chosen),
            ):
                kept = estimator.compress(x, 0)
            yield probability / len(every), estimator.contract(kept, y)


def flips(estimator: GridRounding, x: Tensor, y: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Every outcome of the coins that are not certain."""
    seen: list[Tensor] = []

    def look(_, pi: Tensor, dtype: torch.dtype) -> Tensor:
        seen.append(pi)
        return pi >= 1

    with patch.object(Generator, "coins", look):
        estimator.compress(x, 0)
    pi = seen[0]
    loose = ((pi > 0) & (pi < 1)).nonzero(as_tuple=True)
    for ups in product((False, True), repeat=len(loose[0])):
        up = (pi >= 1).index_put(loose, torch.tensor(ups, dtype=torch.bool))
        with patch.object(Generator, "coins", return_value=up):
            kept = estimator.compress(x, 0)
        probability = torch.where(up, pi, 1 - pi)[loose].prod().item()
        yield probability, estimator.contract(kept, y)


def roundings(
    estimator: StochasticRounding, x: Tensor, y: Tensor
) -> Iterator[tuple[float, Tensor]]:
    """Every way to round the entries that are not on their grid."""
    f = estimator.grid(x)[2].frac().flatten()
    loose = (f > 0).nonzero()[:, 0]
    for ups in product((False, True), repeat=len(loose)):
        up = torch.zeros_like(f, dtype=torch.bool).index_put_(
            (loose,), torch.tensor(ups, dtype=torch.bool)
        )
        probability = torch.where(up, f, 1 - f)[loose].prod().item()
        kept = estimator.keep(x, torch.where(up, 0.0, 1.0).reshape(x.shape).float(), 0)
        yield probability, estimator.contract(kept, y)


def mean_and_variance(estimator: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """E Ĝ and E‖Ĝ − G‖²_F as sums over every outcome."""
    exact = x.T @ y
    total, mean, variance = 0.0, torch.zeros_like(exact), torch.zeros((), dtype=x.dtype)
    for probability, estimate in outcomes(estimator, x, y):
        total += probability
        mean += probability * estimate
        variance += probability * (estimate - exact).square().sum()
    assert abs(total - 1) < 1e-12
    return mean, variance
