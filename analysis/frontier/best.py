"""What a frontier says: its average over layers and steps, and which estimators are best for a
budget of bytes.
"""

import numpy as np
import pandas as pd
import torch

from sketchvar.analysis.frontier.rows import BASELINE, family, is_oracle, line
from sketchvar.estimators import parse
from sketchvar.estimators.spelling import takes_rate


def average(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per estimator and budget over all layers and steps in ``rows``: the median ratio and
    its quartiles.

    ``kept_bytes`` is the sum over layers, averaged over steps, ``fraction`` that over X's, and
    ``stderr`` the median of the standard errors of the ratio. What does not fit the budget in every
    layer is left out.
    """
    keys = ["family", "line", "estimator", "budget", "oracle", "biased"]
    steps = rows["step"].nunique() if "step" in rows else 1
    x_bytes, stderr = (
        rows["kept_bytes"] / rows["fraction"],
        rows["stderr"] / rows["minibatch_example"],
    )
    by = rows.assign(x_bytes=x_bytes, stderr=stderr).groupby(keys, sort=False, dropna=False)
    table = by.agg(
        kept_bytes=("kept_bytes", lambda v: v.sum() / steps),
        x_bytes=("x_bytes", lambda v: v.sum() / steps),
        ratio=("ratio", "median"),
        low=("ratio", lambda v: v.quantile(0.25)),
        high=("ratio", lambda v: v.quantile(0.75)),
        stderr=("stderr", "median"),
        count=("ratio", "size"),
    ).reset_index()
    table = table[table["count"] == table["count"].max()]
    return table.assign(fraction=table["kept_bytes"] / table["x_bytes"]).drop(columns="x_bytes")


def of_run(rows: pd.DataFrame, dtype: torch.dtype) -> pd.DataFrame:
    """The rows of a run (``rows.parquet``, trained in ``dtype``) as a frontier's: rates for
    budgets.
    """
    rows = rows[rows["estimator"] != "exact"]
    made = {name: parse(name, 1.0, torch.ones(1)) for name in rows["estimator"].unique()}
    return rows.assign(
        family=rows["estimator"].map({name: family(e) for name, e in made.items()}),
        line=rows["estimator"].map(line),
        budget=rows["rate"].where(rows["estimator"].map(takes_rate).astype(bool)),
        fraction=rows["kept_bytes"] / (rows["rows"] * rows["p"] * dtype.itemsize),
        stderr=0.0,
        oracle=rows["estimator"].map(is_oracle),
        biased=rows["estimator"].map({name: e.traits.biased for name, e in made.items()}),
    )


def recommended(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without oracles, which need Y in advance, and biased estimators, whose error does
    not average out.
    """
    return rows[~rows["oracle"] & ~rows["biased"]]


def best(rows: pd.DataFrame, budget: float, count: int = 3) -> pd.DataFrame:
    """The ``count`` estimators of least ratio among those that keep at most ``budget`` of X's
    bytes.

    Of two that are one, as rounding all rows and rounding a sample of all rows, the first of
    ``rows`` is given.
    """
    fits = recommended(rows[rows["fraction"] <= budget])
    same = fits.assign(ratio=fits["ratio"].map("{:.9g}".format)).duplicated(["kept_bytes", "ratio"])
    return fits[~same].sort_values("ratio", kind="stable").drop_duplicates("estimator").head(count)


def envelope(rows: pd.DataFrame) -> pd.DataFrame:
    """The least ratio that can be had at each number of kept bytes, rising in bytes."""
    fits = recommended(rows[rows["ratio"] > 0])
    fits = fits.assign(fraction=fits["fraction"].round(3)).sort_values(["fraction", "ratio"])
    return fits[fits["ratio"] < fits["ratio"].cummin().shift(fill_value=float("inf"))]


def merged(rows: pd.DataFrame, within: float = 0.05) -> pd.DataFrame:
    """The same rows, the lines of a family ``within`` of each other at all budgets made one: "a,
    b".
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
