"""Every outcome of an estimator on a small pair: (probability, Ĝ), whose sums are its exact mean and variance."""

from collections.abc import Iterator
from itertools import combinations, permutations, product
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from estimators import SRHT, Compressed, CountSketch, Rademacher, UniformRows
from estimators.countsketch import Buckets
from estimators.hadamard import padded
from estimators.orthogonal import SignedRows
from estimators.sampling import ImportanceRows

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
        case CountSketch():
            offsets = estimator.draw(n, 0, CPU).offsets
            orders = [torch.tensor(o, dtype=torch.int32) for o in permutations(range(n))]
            return [Buckets(order, offsets, s) for order in orders for s in every_sign(n)]
        case SRHT():
            subsets = [torch.tensor(rows) for rows in combinations(range(padded(n)), estimator.k(n))]
            return [SignedRows(s, rows) for rows in subsets for s in every_sign(n)]
        case UniformRows():
            return [torch.tensor(rows) for rows in permutations(range(n), estimator.k(n))]
    raise TypeError(f"no enumeration for {estimator}")


def outcomes(estimator: Any, x: Tensor, y: Tensor) -> Iterator[tuple[float, Tensor]]:
    """(probability, Ĝ) for every outcome. Row sketches go through ``apply``, samplers through both of their phases."""
    if isinstance(estimator, ImportanceRows):
        yield from sampled(estimator, x, y)
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
            with patch("estimators.sampling.invert", return_value=torch.tensor(rows)):
                kept: Compressed = estimator.compress(x, 0)
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
