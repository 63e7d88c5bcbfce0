"""What averaging several sketches buys: m of rate ρ beside one of rate mρ, on one layer's pair."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from sketchvar.analysis.probe import Layer
from sketchvar.estimators import Estimator, choices, estimate
from sketchvar.estimators.choice import Flags
from sketchvar.estimators.empirical import Measured
from sketchvar.estimators.norms import wide
from sketchvar.estimators.seeds import fold

COLUMNS = ["layer", "estimator", "rate", "count", "variance", "stderr", "draws", "one", "single"]
COLUMNS += Flags._fields


def average_sketches(
    layer: Layer,
    estimators: Sequence[str],
    rate: float,
    counts: Sequence[int],
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Average m sketches, a row per estimator and count m: the measured ``variance`` of the mean of
    m sketches of ``rate``, the closed forms of ``one`` sketch of rate m·rate, which keeps as much,
    and of a ``single`` sketch of ``rate``.

    Raises ValueError where m·rate exceeds 1.
    """
    x, y = layer.moments.pair
    lines = []
    for choice in choices(estimators, rate):
        single = choice.told()
        for count in counts:
            seeds = fold(seed, choice.name, count)
            found = measure_average(single, count, x, y, draws, seeds)
            one = choice.at(count * rate).told()
            closed = (float(each.variance(layer.moments)) for each in (one, single))
            numbers = (float(found.value), float(found.stderr), draws, *closed)
            lines.append((layer.name, choice.name, rate, count, *numbers, *choice.flags))
    return pd.DataFrame(lines, columns=COLUMNS)


def measure_average(
    estimator: Estimator, count: int, x: Tensor, y: Tensor, draws: int, seed: int
) -> Measured:
    """Measure the variance of the mean of ``count`` independent estimates of XᵀY, by ``draws``."""
    exact = (wide(x).T @ wide(y)).double()
    errors = []
    for i in range(draws):
        total = sum(estimate(estimator, x, y, fold(seed, i, j)).double() for j in range(count))
        errors.append((total / count - exact).square().sum())
    each = torch.stack(errors)
    return Measured(each.mean(), each.std() / draws**0.5, draws)
