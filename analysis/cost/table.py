"""Tables of what noise costs, from its draws: ratios to the minibatch, by layer, and coherence."""

from collections.abc import Sequence
from math import nan

import numpy as np
import pandas as pd

from sketchvar.analysis.noise.draw import ENOUGH, LINEAR, MINIBATCH
from sketchvar.analysis.noise.horizon import Dynamics

KEYS = ["noise", "rate", "seeds"]
EDGE = (
    0.5  # of the curvature at which steps diverge: there noise costs twice what it does where flat
)
RATIOS = {"variance": "variance_ratio", "metric": "metric_ratio", "cost": "cost_ratio"}


def price(
    totals: pd.DataFrame, spectra: pd.DataFrame, dynamics: Dynamics, horizons: Sequence[float]
) -> pd.DataFrame:
    """The cost of every draw of noise over every horizon: from its own form over one step, from its
    spectrum over more. Draws without a spectrum have the former only.

    Curvature beyond ``EDGE`` of that at which steps diverge counts as that: the loss is no
    quadratic there, few examples overestimate the steepest, and training lives with it.
    ``unstable`` is the share of the noise, in the metric, in such directions, and ``negative`` that
    in which the loss curves down, which count as flat; NaN for one step.
    """
    edge = EDGE * dynamics.edge
    one = float(dynamics.held(np.ones(1), 1)[0])
    parts = [totals.assign(horizon=1.0, cost=one * totals["form"], negative=nan, unstable=nan)]
    if len(spectra):
        power = spectra["weight"]
        table = spectra.assign(
            negative=power.where(spectra["node"] < 0, 0.0),
            unstable=power.where(spectra["node"] > edge, 0.0),
        )
        node = np.minimum(spectra["node"].to_numpy(), edge)
        for horizon in sorted(set(horizons) - {1}):
            table["cost"] = power * dynamics.held(node, horizon)
            sums = table.groupby([*KEYS, "draw"], sort=False)[
                ["weight", "cost", "negative", "unstable"]
            ].sum()
            shares = sums[["negative", "unstable"]].div(sums["weight"], axis=0).fillna(0.0)
            sums[["negative", "unstable"]] = shares
            known = totals.merge(sums.drop(columns="weight").reset_index(), on=[*KEYS, "draw"])
            parts.append(known.assign(horizon=float(horizon)))
    return pd.concat(parts, ignore_index=True)


def ratios(costs: pd.DataFrame) -> pd.DataFrame:
    """Variance, metric and cost of every estimator's noise over those of the minibatch's, with
    standard errors: a row per estimator, rate and horizon, from ``price``. Ratios of means. NaN
    errors for fewer than ``ENOUGH`` draws.
    """
    own = costs[costs["seeds"] == "own"]
    once = {key: each for key, each in own[own["horizon"] == 1].groupby(["noise", "rate"])}
    lines = []
    for horizon, part in own.groupby("horizon", sort=True):
        minibatch = part[part["noise"] == MINIBATCH]
        for key, each in part.groupby(["noise", "rate"], sort=False):
            if key[0] in (MINIBATCH, LINEAR):
                continue
            all_draws = over(once[key], once[MINIBATCH, 1.0])  # variance and metric have no horizon
            here = over(each, minibatch)
            lines.append(
                {"estimator": key[0], "rate": key[1], "horizon": horizon}
                | all_draws
                | {name: here[name] for name in ("cost_ratio", "cost_ratio_stderr")}
                | {"draws": len(each)}
                | {odd: each[odd].mean() for odd in ("negative", "unstable")}
            )
    return pd.DataFrame(lines)


def by_layer(layers: pd.DataFrame, dynamics: Dynamics) -> pd.DataFrame:
    """The same of every linear layer by itself, over one step: its own noise over the minibatch's
    in its weight. ``cost`` and ``minibatch_cost`` are in units of the loss.
    """
    own = layers[(layers["seeds"] == "own") & (layers["noise"] != LINEAR)]
    own = own.assign(cost=float(dynamics.held(np.ones(1), 1)[0]) * own["form"])
    lines = []
    for layer, part in own.groupby("layer", sort=False):
        minibatch = part[part["noise"] == MINIBATCH]
        for (name, rate), each in part.groupby(["noise", "rate"], sort=False):
            if name != MINIBATCH:
                cost, error = mean(each["cost"])
                lines.append(
                    {"layer": layer, "estimator": name, "rate": rate}
                    | over(each, minibatch)
                    | {"cost": cost, "cost_stderr": error}
                    | {"minibatch_cost": mean(minibatch["cost"])[0], "draws": len(each)}
                )
    return pd.DataFrame(lines)


def coherence(totals: pd.DataFrame) -> pd.DataFrame:
    """How much of each noise's one-step cost is there because tensors of weights err together: a
    row per noise and kind of seeds, the minibatch's and that of its linear weights among them.

    ``coherence`` = 1 − ``apart``/``form`` of the same draws; the ratios are to the minibatch's.
    """
    totals = totals.assign(cost=totals["form"])
    minibatch = totals[totals["noise"] == MINIBATCH]
    lines = []
    for key, each in totals[totals["apart"].notna()].groupby(KEYS, sort=False):
        left, error = quotient(each, each, "apart", "form")
        lines.append(
            dict(zip(KEYS, key, strict=True))
            | over(each, minibatch)
            | {"coherence": 1 - left, "coherence_stderr": error, "draws": len(each)}
        )
    return pd.DataFrame(lines)


def agreement(totals: pd.DataFrame, ways: pd.DataFrame) -> pd.DataFrame:
    """Whether one-step costs by several curvatures agree: a row per noise and other ``curvature``.

    ``over_first`` is its cost over that by the first one, of the same draws, which are paired;
    ``cost_ratio`` by it and ``first`` by the first are to the minibatch's, of those draws too.
    """
    own = totals[totals["draw"].isin(ways["draw"].unique()) & (totals["seeds"] == "own")]
    first = {key: each for key, each in own.groupby(["noise", "rate"], sort=False)}
    lines = []
    for name, part in ways.groupby("curvature", sort=False):
        below, minibatch = part[part["noise"] == MINIBATCH], first[MINIBATCH, 1.0]
        for key, each in part.groupby(["noise", "rate"], sort=False):
            mine, line = first[key], dict(zip(("noise", "rate"), key, strict=True))
            line["curvature"] = name
            pairs = {
                "over_first": (each, mine),
                "cost_ratio": (each, below),
                "first": (mine, minibatch),
            }
            for what, pair in pairs.items():
                line[what], line[f"{what}_stderr"] = quotient(*pair, "form")
            lines.append(line | {"draws": len(each)})
    return pd.DataFrame(lines)


def over(each: pd.DataFrame, minibatch: pd.DataFrame) -> dict[str, float]:
    """The three ratios of one noise's draws to the minibatch's, with errors."""
    found = {}
    for name, ratio in RATIOS.items():
        found[ratio], found[f"{ratio}_stderr"] = quotient(each, minibatch, name)
    return found


def mean(values: pd.Series) -> tuple[float, float]:
    """Mean and standard error of what is not NaN."""
    known = values.dropna().to_numpy(dtype=float)
    if len(known) == 0:
        return np.nan, np.nan
    if np.isinf(known).any():
        return np.inf, np.nan
    error = known.std(ddof=1) / len(known) ** 0.5 if len(known) >= ENOUGH else np.nan
    return float(known.mean()), float(error)


def quotient(
    above: pd.DataFrame, below: pd.DataFrame, name: str, under: str = ""
) -> tuple[float, float]:
    """Mean of ``above[name]`` over mean of ``below[under or name]``, and its standard error to
    first order: what every draw adds to it, of both where both have that draw, since they share
    batches. NaN where either has fewer than ``ENOUGH`` draws.
    """
    values, beneath = above.set_index("draw")[name], below.set_index("draw")[under or name]
    (a, error_a), (b, error_b) = mean(values), mean(beneath)
    if not b or not np.isfinite(b):
        return np.nan, np.nan
    ratio = a / b
    if np.isnan(error_a + error_b):
        return ratio, np.nan
    above_by, below_by = centre(values), ratio * centre(beneath)
    return ratio, float((above_by.sub(below_by, fill_value=0.0) ** 2).sum() ** 0.5 / abs(b))


def centre(values: pd.Series) -> pd.Series:
    """What each value adds to the error of their mean: squares that sum to its variance."""
    known = values.dropna()
    return (known - known.mean()) / (len(known) * (len(known) - 1)) ** 0.5
