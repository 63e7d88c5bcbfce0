"""The prediction tested: a step whose ratio is r should train like an exact step on 1 / (1 + r) of
the batch.
"""

import numpy as np
import pandas as pd

from sketchvar.analysis.sweep.outcome import (
    FLAGS,
    METHOD,
    estimate_interval,
    name_interval,
    select_final,
)

COLUMNS = ["estimator", "rate", "fraction", "effective_batch", "seeds", "inside"]


def predict(rows: pd.DataFrame, value: str = "validation") -> pd.DataFrame:
    """Predict every estimator and rate, a row each: the ``observed`` final ``value`` (a column of
    the rows, or "steps": the updates to reach ``find_target``), the one ``predicted`` for exact
    training on the effective batch, and the ``error`` observed − predicted; each as mean, low, high
    over seeds.

    ``effective_batch`` is the batch × the mean of 1 / (1 + ratio) over the evaluated steps of each
    run. The prediction comes from the exact runs of the same seed on several batches, by straight
    lines in log(batch); ``inside`` says whether all effective batches lie within those (outside,
    the nearest end stands).
    Raises ValueError with fewer than two batches of exact training.
    """
    last = select_final(rows)
    if value == "steps":
        last["steps"] = [
            count_steps(rows[rows["cell"] == cell], find_target(rows)) for cell in last["cell"]
        ]
    plain = last[(last["estimator"] == "exact") & ~last["checkpointing"]]
    if len(set(plain["batch"])) < 2:
        raise ValueError(
            "a prediction needs exact training on two batches or more; give --fractions 0.5 0.25"
            " 0.125"
        )
    lines = []
    for method, runs in last[last["estimator"] != "exact"].groupby(METHOD, sort=False):
        runs = runs[runs["fraction"].notna() & runs["seed"].isin(set(plain["seed"]))]
        if runs.empty:
            continue
        effective = runs["batch"] * runs["fraction"]
        predicted = np.array(
            [interpolate(plain, s, b, value) for s, b in zip(runs["seed"], effective, strict=True)]
        )
        inside = bool(effective.between(plain["batch"].min(), plain["batch"].max()).all())
        numbers = (*method[:2], runs["fraction"].mean(), effective.mean(), len(runs), inside)
        line: dict[str, object] = dict(zip(COLUMNS, numbers, strict=True))
        observed = runs[value]
        for name, values in (
            ("observed", observed),
            ("predicted", predicted),
            ("error", observed - predicted),
        ):
            line |= name_interval(name, estimate_interval(values))
        line |= {"task": rows["task"].iloc[0]}
        line |= {flag: runs[flag].iloc[0] for flag in FLAGS if flag in runs}
        lines.append(line)
    return pd.DataFrame(lines)


def interpolate(plain: pd.DataFrame, seed: int, batch: float, value: str) -> float:
    """Interpolate ``value`` of exact training on a batch between those that were trained, of one
    seed.
    """
    known = plain[plain["seed"] == seed].sort_values("batch")
    return float(
        np.interp(np.log(batch), np.log(known["batch"].astype(float)), known[value].astype(float))
    )


def find_target(rows: pd.DataFrame) -> float:
    """Find a validation loss that every run reaches: the greatest over runs of the least loss in a
    run.
    """
    return float(rows.groupby("cell")["validation"].min().max())


def count_steps(run: pd.DataFrame, loss: float) -> float:
    """Count the updates after which one run's validation loss first is at most ``loss``, by
    straight lines; NaN if never.
    """
    run = run.sort_values("step")
    steps, losses = run["step"].to_numpy(float), run["validation"].to_numpy(float)
    below = np.flatnonzero(losses <= loss)
    if not len(below):
        return float("nan")
    i = int(below[0])
    if i == 0:
        return float(steps[0])
    share = (losses[i - 1] - loss) / (losses[i - 1] - losses[i])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))
