"""The best of a frontier: its average over layers and steps, and which estimators vary least for a
budget of bytes. Rows in, rows out.
"""

import re

import numpy as np
import pandas as pd

FAMILIES = ("sampled rows", "row sketches", "features", "rounding")
BASELINE = "uniform-rows"  # the same as a smaller batch of tokens


def average(rows: pd.DataFrame) -> pd.DataFrame:
    """Average over all layers and steps in ``rows``, one row per estimator and budget: the median
    ratio and its quartiles.

    ``kept_bytes`` is the sum over layers, averaged over steps, ``fraction`` that over X's,
    ``stderr`` the median of the standard errors of the ratio that come from draws, ``ratio_stderr``
    that of all of its error, where rows know it: layers and steps err together. What does not fit
    the budget in every layer is left out.
    """
    keys = ["family", "line", "estimator", "budget", "oracle", "biased"]
    steps = rows["step"].nunique() if "step" in rows else 1
    x_bytes, stderr = (
        rows["kept_bytes"] / rows["fraction"],
        rows["stderr"] / rows["minibatch_example"],
    )
    error = rows.get("ratio_stderr", np.nan)
    rows = rows.assign(x_bytes=x_bytes, stderr=stderr, ratio_stderr=error)
    by = rows.groupby(keys, sort=False, dropna=False)
    table = by.agg(
        kept_bytes=("kept_bytes", lambda v: v.sum() / steps),
        x_bytes=("x_bytes", lambda v: v.sum() / steps),
        ratio=("ratio", "median"),
        low=("ratio", lambda v: v.quantile(0.25)),
        high=("ratio", lambda v: v.quantile(0.75)),
        stderr=("stderr", "median"),
        ratio_stderr=("ratio_stderr", "median"),
        count=("ratio", "size"),
    ).reset_index()
    table = table[table["count"] == table["count"].max()]
    return table.assign(fraction=table["kept_bytes"] / table["x_bytes"]).drop(columns="x_bytes")


def drop_unusable(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop oracles, which need Y in advance, and biased estimators, whose error does not average
    out.
    """
    return rows[~rows["oracle"] & ~rows["biased"]]


def find_best(rows: pd.DataFrame, budget: float, count: int = 3) -> pd.DataFrame:
    """Find the ``count`` estimators of least ratio among those that keep at most ``budget`` of X's
    bytes.

    Of two that are one, as rounding all rows and rounding a sample of all rows, the first of
    ``rows`` is given.
    """
    fits = drop_unusable(rows[rows["fraction"] <= budget])
    same = fits.assign(ratio=fits["ratio"].map("{:.9g}".format)).duplicated(["kept_bytes", "ratio"])
    return fits[~same].sort_values("ratio", kind="stable").drop_duplicates("estimator").head(count)


def find_envelope(rows: pd.DataFrame) -> pd.DataFrame:
    """Find the least ratio that can be had at each number of kept bytes, rising in bytes."""
    fits = drop_unusable(rows[rows["ratio"] > 0])
    fits = fits.assign(fraction=fits["fraction"].round(3)).sort_values(["fraction", "ratio"])
    return fits[fits["ratio"] < fits["ratio"].cummin().shift(fill_value=float("inf"))]


def merge_lines(rows: pd.DataFrame, within: float = 0.05) -> pd.DataFrame:
    """Merge the lines of a family that are ``within`` of each other at all budgets into one, called
    "a, b".
    """
    kept: list[tuple[list[str], list[tuple[object, ...]], pd.DataFrame]] = []
    for _, part in rows.groupby(["family", "line"], sort=False):
        name = part["line"].iloc[0]
        kind = list(
            part[["family", "budget", "oracle", "biased"]].itertuples(index=False, name=None)
        )
        for names, other_kind, other in kept:
            near = (
                kind == other_kind
                and np.abs(part["ratio"].to_numpy() / other["ratio"].to_numpy() - 1) < within
            )
            if name != BASELINE != names[0] and np.all(near):
                names.append(name)
                break
        else:
            kept.append(([name], kind, part))
    return pd.concat([part.assign(line=", ".join(names)) for names, _, part in kept])


def find_line(name: str) -> str:
    """Find the line of a picture that an estimator is on: its name, but without the bits where they
    are what varies along it.
    """
    return re.sub(r"^((centered\()?rounding[a-z-]*):\d", r"\1", name)
