"""The frontier: variance against kept bytes, every estimator at the same bytes, on a pair, a layer
or a whole run.
"""

import re
from collections.abc import Sequence
from functools import cache

import pandas as pd
import torch

from sketchvar.analysis import noise
from sketchvar.analysis.probe import Layer
from sketchvar.estimators import (
    CATALOG,
    Centered,
    Estimator,
    FeatureProjection,
    StochasticRounding,
    Then,
    UniformRows,
    empirical,
    parse,
)
from sketchvar.estimators.catalog import ORACLES
from sketchvar.estimators.quantize import BITS
from sketchvar.estimators.sampling import SampledRows
from sketchvar.estimators.seeds import fold
from sketchvar.estimators.spelling import split_rate, takes_rate

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
]
COLUMNS += ["oracle", "biased"]
FAMILIES = ("sampled rows", "row sketches", "features", "rounding")
BASELINE = "uniform-rows"  # the same as a smaller batch
MORE = [f"rounding-rotated:{bits}" for bits in (1, 4, 8)] + [
    f"centered(rounding:{bits})" for bits in BITS
]
MORE += ["centered(uniform-rows)", "uniform-rows+rounding:2"]
MORE += ["centered(uniform-rows+rounding:2)", "centered(uniform-rows+rounding:4)"]
ESTIMATORS = [*(name for name in CATALOG if name != "exact"), *MORE]
BUDGETS = (0.5, 0.25, 0.125, 0.06, 0.03)  # bytes, as fractions of those of X
FRACTIONS = (0.75, *BUDGETS, 0.015)
DRAWS = 32  # behind each variance that has no closed form
STEPS = 10_000  # the finest rate that is tried is one in so many


def frontier(
    layer: Layer,
    dtype: torch.dtype,
    estimators: Sequence[str] = ESTIMATORS,
    fractions: Sequence[float] = FRACTIONS,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per estimator and fraction of X's bytes (one whose size is its own, as rounding: one
    row), ``COLUMNS``.

    At each fraction (``budget``) an estimator has the largest rate whose kept bytes, in ``dtype``
    and with all indices, scales and the seed, fit it; the row is missing where none does. ``ratio``
    is variance over the minibatch variance by example. Where there is no closed form the variance
    is that of ``draws`` draws, with ``stderr``; with ``draws=0`` such estimators are left out.
    ``bias_sq`` is the part of a biased estimator's variance that is bias. ``line`` is the estimator
    with its bits left open. Needs a layer probed with its pair.
    """
    m = layer.moments
    row, example = noise.by_row(m), torch.full_like(m.C, torch.nan)
    if layer.example_sq is not None:
        example = noise.by_example(layer.example_sq, m.C)
    lines = []
    for text in estimators:
        for budget in fractions if takes_rate(text) else (float("nan"),):
            rate = fitting_rate(text, budget, m.n, m.p, dtype)
            if rate is None:
                continue
            name, rate = split_rate(text, rate)
            e = parse(text, rate, m.y_sq)
            if e.traits.no_closed_form and not draws:
                continue
            stderr = bias_sq = torch.zeros(())
            if e.traits.no_closed_form:
                measured = empirical(e, *m.pair, draws, fold(seed, "frontier", name)).variance
                variance, stderr = measured.value, measured.stderr
            else:
                variance = e.variance(m)
            if e.traits.biased:
                bias_sq = e.bias_sq(m)  # type: ignore[attr-defined]  # what is biased has one
            kept = e.kept_bytes(m.n, m.p, dtype)
            numbers = torch.stack(
                [
                    t.double().cpu()
                    for t in (variance, stderr, bias_sq, row, example, variance / example)
                ]
            )
            size = [kept, kept / (m.n * m.p * dtype.itemsize)]
            what = [
                layer.name,
                m.p,
                m.q,
                m.n,
                layer.examples,
                family(e),
                line(name),
                name,
                rate,
                budget,
            ]
            lines.append([*what, *size, *numbers.tolist(), is_oracle(name), e.traits.biased])
    return pd.DataFrame(lines, columns=COLUMNS)


@cache
def fitting_rate(text: str, fraction: float, n: int, p: int, dtype: torch.dtype) -> float | None:
    """The largest rate, in steps of 1 / ``STEPS``, that keeps at most ``fraction`` of X's bytes; 1
    without a rate.
    """
    if not takes_rate(text):
        return 1.0
    low, high = 0, STEPS
    while low < high:
        middle = (low + high + 1) // 2
        kept = parse(text, middle / STEPS, torch.ones(1)).kept_bytes(n, p, dtype)
        low, high = (
            (middle, high) if kept <= fraction * n * p * dtype.itemsize else (low, middle - 1)
        )
    return low / STEPS or None


def family(e: Estimator) -> str:
    """Which of ``FAMILIES`` an estimator is of: what it does to X, not how."""
    match e:
        case Centered():
            return family(e.inner)
        case StochasticRounding() | Then():
            return "rounding"
        case FeatureProjection():
            return "features"
        case UniformRows() | SampledRows():
            return "sampled rows"
    return "row sketches"


def line(name: str) -> str:
    """The name of an estimator whose bits are what varies along its line, without them."""
    return re.sub(r"^((centered\()?rounding[a-z-]*):\d", r"\1", name)


def is_oracle(name: str) -> bool:
    """Whether the estimator is told about Y here, which no layer can know."""
    return any(oracle in name for oracle in ORACLES)
