"""Closed forms over the truth: rows of ``truth`` in, with ratios out."""

import pandas as pd


def divide_by_redrawn(rows: pd.DataFrame) -> pd.DataFrame:
    """Divide both closed forms by the redrawn variance: ``row_ratio`` and ``example_ratio`` with
    standard errors ``…_ratio_stderr``, as of independent estimates; rows that were redrawn only.

    To first order: (stderr of a ratio / ratio)² is the sum of those of its two parts.
    """
    rows = rows[rows["redrawn"].notna()]
    drawn = rows["redrawn_stderr"] / rows["redrawn"]
    for form in ("row", "example"):
        ratio = rows[form] / rows["redrawn"]
        error = (drawn**2 + (rows[f"{form}_stderr"] / rows[form]) ** 2) ** 0.5
        rows = rows.assign(**{f"{form}_ratio": ratio, f"{form}_ratio_stderr": error * ratio})
    return rows
