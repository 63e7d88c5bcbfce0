"""The outcome of a sweep: final values beside exact training and the smaller batches of the same
memory, with pooled intervals, corrected for how many are drawn.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from sketchvar.analysis.sweep.pooled import Difference, Finals, holm
from sketchvar.analysis.sweep.slowdown import slow_down

FLAGS = ["oracle", "biased", "takes_rate"]
# what makes two runs the same but for their seed
METHOD = ["estimator", "rate", "batch", "checkpointing", "layers"]
VALUES = ("metric", "validation")
ENDS = ("_low", "_high")
PARTNERS = {"smaller": "same_memory_batch", "peak": "same_peak_batch"}
BASELINES = ("exact", *PARTNERS, "examples")
LONGER = "equal-examples"  # what exact training for as many examples is called among methods


def estimate_interval(
    values: Sequence[float] | pd.Series | np.ndarray, level: float = 0.95
) -> tuple[float, float, float]:
    """Estimate the mean and the ends of its Student interval; NaN ends for fewer than two
    values.
    """
    found = np.asarray(values, float)
    mean = float(found.mean()) if len(found) else math.nan
    if len(found) < 2:
        return mean, math.nan, math.nan
    half = float(
        student.ppf((1 + level) / 2, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    )
    return mean, mean - half, mean + half


def select_final(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the last row of every run, with ``fraction``: its mean effective batch fraction,
    1 / (1 + ratio), in training.
    """
    fraction = (1 / (1 + rows["ratio"])).groupby(rows["cell"]).mean().rename("fraction")
    last = rows.sort_values("step", kind="stable").drop_duplicates("cell", keep="last")
    return last.join(fraction, on="cell").sort_index()


def is_longer(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of runs with more updates, for as many examples; none of older sweeps', by
    themselves or beside newer ones.
    """
    return rows["longer"].eq(True) if "longer" in rows else pd.Series(False, rows.index)


def pool(last: pd.DataFrame, value: str) -> Finals:
    """Pool a final value (a column of ``select_final``) of all runs, but for checkpointed ones,
    which repeat exact ones; those for as many examples are methods called ``LONGER``.
    """
    runs = last[~last["checkpointing"]]
    runs = runs.assign(estimator=runs["estimator"].mask(is_longer(runs), LONGER))
    return Finals(runs.pivot_table(index=METHOD[:3], columns="seed", values=value))


def summarize(rows: pd.DataFrame, memory: pd.DataFrame) -> pd.DataFrame:
    """Summarize a sweep, one row per method: the final metric and validation loss, as mean, low,
    high of a 95 % Student interval over seeds; their differences to exact training on the whole
    batch (``_exact``), on the batch that leaves as many bytes for backward (``_smaller``), on that
    batch for as many examples (``_examples``) and on the batch of the same peak (``_peak``), as
    mean, low, high of a pooled interval (``Finals``), with
    ``_p`` and, over all of them together, Holm's ``_holm``; ``slowdown`` (``slow_down``), with the
    ends of the loss's interval; time and peak memory over those of exact training; and where runs
    have one, the mean ``factor`` of the learning rate.

    ``memory`` is ``Grid.activations()``; a table without ``same_peak_batch``, as older ones are,
    has the batch whose recorded peak is the same, by straight lines between those trained. A
    difference is NaN where its baseline was not trained, or is the whole batch. ``detectable``: the
    least difference of loss that these seeds would have shown (``Finals.detectable``), once alone
    and once among ``drawn``, the number of all intervals.
    """
    every = select_final(rows)
    last = every[~is_longer(every)]
    exact = last[(last["estimator"] == "exact") & ~last["checkpointing"]]
    whole = exact[exact["batch"] == exact["batch"].max()]
    finals = {value: pool(every, value) for value in VALUES}
    curve = rows[rows["cell"].isin(whole["cell"])].groupby("step")["validation"].mean()
    lines = []
    for method, runs in last.groupby(METHOD, sort=False):
        line: dict[str, Any] = {"task": rows["task"].iloc[0]}
        line |= dict(zip(METHOD, method, strict=True)) | {"seeds": runs["seed"].nunique()}
        line |= {flag: runs[flag].iloc[0] for flag in FLAGS if flag in runs}
        line |= find_partners(runs, exact, memory)
        for value in VALUES:
            line |= name_interval(value, estimate_interval(runs[value]))
            for name in BASELINES:
                batch = whole["batch"].iloc[0]
                if name != "exact":
                    batch = line[PARTNERS.get(name, "same_memory_batch")]
                found = None if method[3] else compare(finals[value], method[:3], batch, name)
                line |= name_difference(f"{value}_{name}", found)
        loss = curve.iloc[-1] + np.array([line[f"validation_exact{e}"] for e in ("", *ENDS)])
        line |= name_interval("slowdown", tuple(slow_down(curve, each) for each in loss))
        if "factor" in runs:
            line["factor"] = runs["factor"].mean()
        line["ratio"], line["fraction"] = runs["ratio"].mean(), runs["fraction"].mean()
        for value in ("seconds", "peak"):
            both = runs.merge(whole, on="seed", suffixes=("", "_base"))
            line[value] = (both[value] / both[f"{value}_base"]).mean()
        lines.append(line)
    return correct(pd.DataFrame(lines), finals["validation"])


def find_partners(
    runs: pd.DataFrame, exact: pd.DataFrame, memory: pd.DataFrame
) -> dict[str, float | None]:
    """Find the batches on which exact training has as many bytes left for backward as a method's
    runs, and the same peak; None for exact training itself.
    """
    estimator, rate = runs["estimator"].iloc[0], runs["rate"].iloc[0]
    if estimator == "exact":
        return {"same_memory_batch": None, "same_peak_batch": None}
    mine = memory[(memory["estimator"] == estimator) & (memory["rate"] == rate)]
    found = {name: mine[name].iloc[0] for name in PARTNERS.values() if name in mine and len(mine)}
    if "same_peak_batch" not in found:
        peaks = exact.groupby("batch")["peak"].mean().sort_index()
        found["same_peak_batch"] = np.interp(runs["peak"].mean(), peaks, peaks.index.to_numpy())
    return {"same_memory_batch": None} | found


def compare(
    finals: Finals, method: tuple[Any, ...], batch: float | None, baseline: str
) -> Difference | None:
    """A method's final value less that of exact training on a batch; None where that is the method
    itself, was not trained, or is the whole batch though a smaller one was meant.
    """
    if baseline == "examples":
        longer = (LONGER, 1.0, batch)
        return finals.differ(method, longer) if longer in finals.table.index else None
    batches = [each for name, _, each in finals.table.index if name == "exact"]
    if batch is None or not batches or not min(batches) <= batch <= max(batches):
        return None
    if method == ("exact", 1.0, batch) or (baseline != "exact" and batch >= max(batches)):
        return None
    return finals.differ_from_exact(method, batch)


def correct(table: pd.DataFrame, losses: Finals) -> pd.DataFrame:
    """Add Holm's p-values of all intervals that are drawn, and the power of the seeds."""
    names = [f"{value}_{name}" for value in VALUES for name in BASELINES]
    p = table[[f"{name}_p" for name in names]].to_numpy(float)
    adjusted = holm(p.ravel()).reshape(p.shape)
    drawn = int(np.isfinite(p).sum())
    table = table.assign(**{f"{name}_holm": adjusted[:, i] for i, name in enumerate(names)})
    power = {"detectable": losses.detectable(), "drawn": drawn}
    return table.assign(**power, detectable_drawn=losses.detectable(max(drawn, 1)))


def name_interval(value: str, numbers: tuple[float, ...]) -> dict[str, float]:
    """Name a mean and its interval as columns."""
    return dict(zip((value, f"{value}_low", f"{value}_high"), numbers, strict=True))


def name_difference(value: str, found: Difference | None) -> dict[str, float]:
    """Name a difference, its interval and its p as columns."""
    mean, half, p = (math.nan,) * 3 if found is None else (found.mean, found.half, found.p)
    return name_interval(value, (mean, mean - half, mean + half)) | {f"{value}_p": p}
