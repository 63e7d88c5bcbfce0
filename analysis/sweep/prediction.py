"""The predictions tested: a step whose ratio is r should train like an exact step on 1 / (1 + r) of
the batch, with the ratio of variances, of variances in the metric, or of costs.
"""

from collections.abc import Hashable

import numpy as np
import pandas as pd

from sketchvar.analysis.sweep.outcome import (
    FLAGS,
    METHOD,
    estimate_interval,
    is_longer,
    name_difference,
    name_interval,
    pool,
    select_final,
)
from sketchvar.analysis.sweep.slowdown import count_steps, find_target

COLUMNS = ["estimator", "rate", "fraction", "effective_batch", "seeds", "inside"]
BY = {"": "ratio", "_metric": "metric_ratio", "_cost": "cost_ratio"}  # suffix of columns


def predict(
    rows: pd.DataFrame,
    value: str = "validation",
    costs: pd.DataFrame | None = None,
    horizon: float | None = None,
) -> pd.DataFrame:
    """Predict every estimator and rate, a row each: the ``observed`` final ``value`` (a column of
    the rows, or "steps": the updates to reach ``find_target``), the one ``predicted`` for exact
    training on the effective batch, each as mean, low, high over seeds, and the ``error`` observed
    − predicted with its pooled interval (``Finals``) and ``error_p``.

    ``effective_batch`` is the batch × the mean of 1 / (1 + ratio) over the evaluated steps of each
    run. The prediction comes from the exact runs of the same seed on several batches, by straight
    lines in log(batch); ``inside`` says whether all effective batches lie within those (outside,
    the nearest end stands).
    ``costs`` is the cost.parquet of a ``sketchvar cost`` of the same task: then the same columns
    with ``_metric`` and ``_cost`` are by its metric ratio and by its cost ratio over a ``horizon``
    (the longest finite one unless given), means over its steps. The ratios' own errors are not in
    the intervals.
    Raises ValueError with fewer than two batches of exact training.
    """
    rows = rows[~is_longer(rows)]
    last = select_final(rows)
    if value == "steps":
        curves = {cell: run.set_index("step")["validation"] for cell, run in rows.groupby("cell")}
        target = find_target(rows)
        last["steps"] = [count_steps(curves[cell], target) for cell in last["cell"]]
    plain = last[(last["estimator"] == "exact") & ~last["checkpointing"]]
    if len(set(plain["batch"])) < 2:
        raise ValueError(
            "a prediction needs exact training on two batches or more; give --fractions 0.5 0.25"
            " 0.125"
        )
    told = {} if costs is None else {by: find_fractions(costs, by, horizon) for by in BY.values()}
    finals = pool(last, value)
    lines = []
    for method, runs in last[last["estimator"] != "exact"].groupby(METHOD, sort=False):
        runs = runs[runs["seed"].isin(set(plain["seed"]))]
        line: dict[str, object] = dict(zip(COLUMNS, method[:2], strict=False))
        observed = name_interval("observed", estimate_interval(runs[value]))
        for suffix, by in BY.items():
            known = runs["fraction"] if by == "ratio" else told.get(by, {}).get(method[:2], np.nan)
            fractions = pd.Series(known, runs.index, dtype=float).dropna()
            if fractions.empty:
                continue
            effective = runs["batch"] * fractions
            predicted = [
                interpolate(plain, s, b, value)
                for s, b in zip(runs["seed"], effective, strict=True)
            ]
            inside = bool(effective.between(plain["batch"].min(), plain["batch"].max()).all())
            numbers = (fractions.mean(), effective.mean(), len(runs), inside)
            line |= {f"{n}{suffix}": v for n, v in zip(COLUMNS[2:], numbers, strict=True)}
            error = finals.differ_from_exact(method[:3], effective.mean())
            line |= observed | name_interval(f"predicted{suffix}", estimate_interval(predicted))
            line |= name_difference(f"error{suffix}", error)
        if "observed" not in line:  # none of the ratios is known
            continue
        line |= {"task": rows["task"].iloc[0]}
        line |= {flag: runs[flag].iloc[0] for flag in FLAGS if flag in runs}
        lines.append(line)
    return pd.DataFrame(lines)


def find_fractions(
    costs: pd.DataFrame, by: str, horizon: float | None
) -> dict[tuple[Hashable, ...], float]:
    """Find the mean of 1 / (1 + ratio) over steps of every estimator and rate. Raises ValueError
    for a horizon that was not measured.
    """
    known = sorted(set(costs["horizon"]))
    if horizon is None:
        horizon = max(each for each in known if np.isfinite(each))
    if horizon not in known:
        raise ValueError(
            f"no cost over a horizon of {horizon:g} was measured; there are"
            f" {' '.join(f'{each:g}' for each in known)}; change --horizon"
        )
    if by not in costs:
        return {}
    at = costs[costs["horizon"] == horizon]
    means = at.assign(fraction=1 / (1 + at[by])).groupby(["estimator", "rate"])["fraction"].mean()
    return dict(zip(means.index.to_flat_index(), means, strict=True))


def interpolate(plain: pd.DataFrame, seed: int, batch: float, value: str) -> float:
    """Interpolate ``value`` of exact training on a batch between those that were trained, of one
    seed.
    """
    known = plain[plain["seed"] == seed].sort_values("batch")
    return float(
        np.interp(np.log(batch), np.log(known["batch"].astype(float)), known[value].astype(float))
    )
