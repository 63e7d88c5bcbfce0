"""Series: what a picture draws as one: an estimator at a rate, in its own colour and marker."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sketchvar.analysis.style import DASHES, FILLS, find_look

SAME = 0.02  # relative: lines as near as this at all points are one


class Series(NamedTuple):
    """Rows that are drawn as one, their label, and how they look."""

    label: str
    rows: pd.DataFrame
    marks: dict[str, Any]


def list_series(rows: pd.DataFrame, of: str = "estimator") -> list[Series]:
    """One for every ``label``: in the colour and marker of its estimator (column ``of``), filled by
    rate.
    """
    found, seen = [], dict[str, int]()
    for label, part in rows.groupby("label", sort=False):
        name = str(part[of].iloc[0])
        nth = seen.setdefault(name, 0)
        seen[name] += 1
        colour, marker = find_look(name)
        marks = {"color": colour, "marker": marker, "fillstyle": FILLS[nth % len(FILLS)]}
        found.append(Series(str(label), part, marks | {"linestyle": DASHES[nth % len(DASHES)]}))
    return found


def merge_series(series: Sequence[Series], x: str, y: str) -> list[Series]:
    """Merge lines that lie on each other, which would hide one another, into one "a, b"."""
    kept: list[Series] = []
    for one in series:
        for i, other in enumerate(kept):
            if coincide(one.rows, other.rows, x, y):
                kept[i] = other._replace(label=f"{other.label}, {one.label}")
                break
        else:
            kept.append(one)
    return kept


def coincide(one: pd.DataFrame, other: pd.DataFrame, x: str, y: str) -> bool:
    """Whether two lines have the same places, and values within ``SAME``."""
    a, b = one.sort_values(x), other.sort_values(x)
    same = len(a) == len(b) and np.array_equal(a[x].to_numpy(), b[x].to_numpy())
    return same and np.allclose(a[y], b[y], rtol=SAME, atol=0, equal_nan=True)


def draw_series(
    ax: Axes,
    series: Sequence[Series],
    x: str,
    y: str,
    *,
    times: float = 1.0,
    lines: bool = True,
    log: bool = True,
) -> None:
    """Draw each as points or a line, with bars of ``times`` ``y``_stderr where rows know it; on a
    logarithmic axis down to a twentieth.
    """
    for label, rows, marks in series:
        part = rows.sort_values(x, kind="stable") if lines else rows
        values, error = part[y].astype(float), times * take(part, f"{y}_stderr")
        bars = clip_bars(values, error) if log else error
        how = marks if lines else marks | {"linestyle": ""}
        ax.errorbar(part[x], values, bars, label=label, linewidth=1, elinewidth=0.7, **how)


def take(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column of errors, NaN where rows of before have none."""
    return rows[column].astype(float) if column in rows else pd.Series(float("nan"), rows.index)


def clip_bars(values: pd.Series, errors: pd.Series) -> list[pd.Series]:
    """Bars of one standard error down and up, on a logarithmic axis down to a twentieth."""
    return [errors.clip(upper=0.95 * values.abs()), errors]
