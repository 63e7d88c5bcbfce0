"""The frontier: variance against kept bytes, every estimator at the same bytes, on a pair, a layer
or a whole run.
"""

from collections.abc import Sequence
from functools import cache

import pandas as pd
import torch

from sketchvar.analysis import noise
from sketchvar.analysis.frontier.best import find_line
from sketchvar.analysis.noise.batch import Sums
from sketchvar.analysis.noise.errors import estimate
from sketchvar.analysis.probe import Layer
from sketchvar.estimators import (
    CATALOG,
    BothRounded,
    Centered,
    Choice,
    Estimator,
    FeatureProjection,
    GridRounding,
    HotColumns,
    LargestEntries,
    LowRank,
    NearestRounding,
    NormColumns,
    PrincipalFeatures,
    Residual,
    RowBits,
    SampledEntries,
    StochasticRounding,
    SubtokenDirections,
    Then,
    UniformRows,
    choices,
    empirical,
)
from sketchvar.estimators.choice import Estimators, Flags, as_list, choose
from sketchvar.estimators.quantize import BITS
from sketchvar.estimators.sampling import SampledRows
from sketchvar.estimators.seeds import fold
from sketchvar.estimators.spelling import takes_rate

COLUMNS = [
    "layer",
    "p",
    "q",
    "rows",
    "examples",
    "family",
    "line",
    "estimator",
    "rate",
    "budget",
    "kept_bytes",
]
COLUMNS += [
    "fraction",
    "variance",
    "stderr",
    "bias_sq",
    "minibatch_row",
    "minibatch_example",
    "ratio",
    "ratio_stderr",
]
COLUMNS += Flags._fields
MORE = [f"rounding-rotated:{bits}" for bits in (1, 4, 8)] + [
    f"centered(rounding:{bits})" for bits in BITS
]
MORE += ["centered(uniform-rows)", "uniform-rows+rounding:2", "low-rank-countsketch"]
MORE += ["centered(uniform-rows+rounding:2)", "centered(uniform-rows+rounding:4)"]
ESTIMATORS = [*(name for name in CATALOG if name != "exact"), *MORE]
COARSE = dict.fromkeys((LowRank, HotColumns, SubtokenDirections), "features")
COARSE |= dict.fromkeys((NearestRounding, LargestEntries), "rounding")  # numbers, one by one
BUDGETS = (0.5, 0.25, 0.125, 0.06, 0.03)  # bytes, as fractions of those of X
FRACTIONS = (0.75, *BUDGETS, 0.015)
DRAWS = 32  # behind each variance that has no closed form
STEPS = 10_000  # the finest rate that is tried is one in so many


def frontier(
    layer: Layer,
    dtype: torch.dtype,
    estimators: Estimators = ESTIMATORS,
    fractions: Sequence[float] = FRACTIONS,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare estimators at equal bytes on one layer: a row per estimator and fraction of X's bytes
    (one whose size is its own, as rounding or ``gaussian:0.1``: one row), ``COLUMNS``.

    At each fraction (``budget``) an estimator has the largest rate whose kept bytes, in ``dtype``
    and with all indices, scales and the seed, fit it; the row is missing where none does. ``ratio``
    is variance over the minibatch variance by example; its ``ratio_stderr`` has the error of the
    latter, by the jackknife over examples, which all estimators share. Where there is no closed
    form the variance is that of ``draws`` draws, with ``stderr``; with ``draws=0`` such estimators
    are left out.
    ``bias_sq`` is the part of a biased estimator's variance that is bias. ``line`` is the estimator
    with its bits left open. Needs a layer probed with its pair.
    """
    m = layer.moments
    row, example = noise.by_row(m), torch.full_like(m.C, torch.nan)
    if layer.example_sq is not None:
        example = noise.by_example(layer.example_sq, m.C)
    error = estimate(torch.clone, [Sums.of([layer]).example[0]]).stderr / example
    lines = []
    for choice, fits in read(estimators):
        for budget in fractions if fits else (float("nan"),):
            rate = find_rate(choice, budget, m.n, m.p, dtype) if fits else choice.rate
            if rate is None or (choice.no_closed_form and not draws):
                continue
            e = (choice.at(rate) if fits else choice).told(m.y_sq)
            stderr = bias_sq = torch.zeros(())
            if choice.no_closed_form:
                measured = empirical(
                    e, *m.pair, draws, fold(seed, "frontier", choice.name)
                ).variance
                variance, stderr = measured.value, measured.stderr
            else:
                variance = e.variance(m)
            if choice.biased:
                bias_sq = e.bias_sq(m)  # type: ignore[attr-defined]  # what is biased has one
            kept = e.kept_bytes(m.n, m.p, dtype)
            numbers = torch.stack(
                [
                    t.double().cpu()
                    for t in (
                        *(variance, stderr, bias_sq, row, example, variance / example),
                        torch.hypot(variance * error, stderr.to(error)) / example,
                    )
                ]
            )
            size = [kept, kept / (m.n * m.p * dtype.itemsize)]
            where = [layer.name, m.p, m.q, m.n, layer.examples]
            what = [find_family(e), find_line(choice.name), choice.name, rate, budget]
            lines.append([*where, *what, *size, *numbers.tolist(), *choice.flags])
    return pd.DataFrame(lines, columns=COLUMNS)


def of_run(rows: pd.DataFrame, dtype: torch.dtype) -> pd.DataFrame:
    """Take the rows of a run (``rows.parquet``, trained in ``dtype``) for a frontier's: rates for
    budgets.
    """
    rows = rows[rows["estimator"] != "exact"]
    names = rows["estimator"].unique()
    families = {name: find_family(choose(name, 1.0).estimator) for name in names}
    return rows.assign(
        family=rows["estimator"].map(families),
        line=rows["estimator"].map(find_line),
        budget=rows["rate"].where(rows["takes_rate"]),
        fraction=rows["kept_bytes"] / (rows["rows"] * rows["p"] * dtype.itemsize),
        stderr=0.0,
    )


def read(estimators: Estimators) -> list[tuple[Choice, bool]]:
    """Read estimators, each with whether its rate is left open, to be fitted to a budget."""
    return [
        (choice, isinstance(each, str) and takes_rate(each))
        for each in as_list(estimators)
        for choice in choices(each, 1.0)
    ]


@cache
def find_rate(choice: Choice, fraction: float, n: int, p: int, dtype: torch.dtype) -> float | None:
    """Find the largest rate, in steps of 1 / ``STEPS``, that keeps at most ``fraction`` of X's
    bytes; None where none does.
    """
    low, high = 0, STEPS
    while low < high:
        middle = (low + high + 1) // 2
        kept = choice.at(middle / STEPS).estimator.kept_bytes(n, p, dtype)
        low, high = (
            (middle, high) if kept <= fraction * n * p * dtype.itemsize else (low, middle - 1)
        )
    return low / STEPS or None


def find_family(e: Estimator) -> str:
    """Find which of ``FAMILIES`` an estimator is of: what it does to X, not how."""
    match e:
        case Centered():
            return find_family(e.inner)
        case Residual():
            return COARSE.get(e.coarse, "row sketches")
        case StochasticRounding() | GridRounding() | BothRounded() | RowBits() | Then():
            return "rounding"
        case SampledEntries():  # numbers, one by one
            return "rounding"
        case FeatureProjection() | PrincipalFeatures() | NormColumns():
            return "features"
        case UniformRows() | SampledRows():
            return "sampled rows"
    return "row sketches"
