"""The outcome of a sweep: final values with intervals over seeds, beside exact training and a
smaller batch, paired.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import t as student

FLAGS = ["oracle", "biased", "takes_rate"]
# what makes two runs the same but for their seed
METHOD = ["estimator", "rate", "batch", "checkpointing", "layers"]


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


def compare_pairs(
    rows: pd.DataFrame, baseline: pd.DataFrame, value: str
) -> tuple[float, float, float, int]:
    """Compare by seed: the mean difference of ``value`` to the baseline's run of the same seed, its
    interval, and the number of pairs.
    """
    both = rows.merge(baseline, on="seed", suffixes=("", "_base"))
    return *estimate_interval(both[value] - both[f"{value}_base"]), len(both)


def summarize(rows: pd.DataFrame, memory: pd.DataFrame) -> pd.DataFrame:
    """Summarize a sweep, one row per method: the final metric and validation loss, their paired
    differences to exact training on the whole batch (``_exact``) and to exact training on the batch
    that leaves as many bytes for backward (``_smaller``), each as mean, low, high of a 95 %
    interval over seeds; and the ratio of time and of peak memory to exact training.

    ``memory`` is ``Grid.activations()``. A difference is NaN where its baseline was not trained.
    """
    last = select_final(rows)
    exact = last[(last["estimator"] == "exact") & ~last["checkpointing"]]
    whole = exact[exact["batch"] == exact["batch"].max()]
    same = memory.set_index(["estimator", "rate"])["same_memory_batch"].to_dict()
    lines = []
    for method, runs in last.groupby(METHOD, sort=False):
        batch = same.get(method[:2])
        smaller = exact[exact["batch"] == batch] if batch is not None else exact.iloc[:0]
        line = (
            {"task": rows["task"].iloc[0]}
            | dict(zip(METHOD, method, strict=True))
            | {"seeds": len(runs), "same_memory_batch": batch}
            | {flag: runs[flag].iloc[0] for flag in FLAGS if flag in runs}
        )
        for value in ("metric", "validation"):
            line |= name_interval(value, estimate_interval(runs[value]))
            line |= name_interval(f"{value}_exact", compare_pairs(runs, whole, value)[:3])
            line |= name_interval(f"{value}_smaller", compare_pairs(runs, smaller, value)[:3])
        line["ratio"], line["fraction"] = runs["ratio"].mean(), runs["fraction"].mean()
        for value in ("seconds", "peak"):
            both = runs.merge(whole, on="seed", suffixes=("", "_base"))
            line[value] = (both[value] / both[f"{value}_base"]).mean()
        lines.append(line)
    return pd.DataFrame(lines)


def name_interval(value: str, numbers: tuple[float, float, float]) -> dict[str, float]:
    """Name a mean and its interval as columns."""
    return dict(zip((value, f"{value}_low", f"{value}_high"), numbers, strict=True))
