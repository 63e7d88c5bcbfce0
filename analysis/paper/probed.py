"""What one probed run tells of the axis to compress and of the depth: rows in, tables out."""

import re

import pandas as pd

from sketchvar.analysis.noise.select import at_rate


def summarize_kept(rows: pd.DataFrame) -> pd.DataFrame:
    """Summarize rows of ``frontier`` over layers, a row per estimator and budget: the median
    ``fraction`` of X's bytes that is kept, and the median ``ratio`` with its quartiles ``low`` and
    ``high``.
    """
    by = rows.groupby(["estimator", "budget"], dropna=False)
    return by.agg(
        fraction=("fraction", "median"),
        ratio=("ratio", "median"),
        low=("ratio", lambda each: each.quantile(0.25)),
        high=("ratio", lambda each: each.quantile(0.75)),
    ).reset_index()


def select_blocks(rows: pd.DataFrame, rate: float) -> pd.DataFrame:
    """Select the rows of one rate at the last measured step in layers that are in a ``block``, with
    the ``median`` ratio of the block, and as its ``error`` the median of the layers' standard
    errors.
    """
    shown = at_rate(rows[rows["step"] == rows["step"].max()], rate)
    shown = shown.assign(block=shown["layer"].map(find_block)).dropna(subset="block")
    error = shown["ratio_stderr"].astype(float) if "ratio_stderr" in shown else float("nan")
    by = shown.assign(error=error).groupby(["estimator", "block"])
    return shown.assign(
        median=by["ratio"].transform("median"), error=by["error"].transform("median")
    )


def find_block(layer: str) -> float:
    """Find the number of the block that a layer is in; NaN for one outside the blocks."""
    found = re.search(r"\.(\d+)\.", f".{layer}.")
    return float(found[1]) if found else float("nan")
