"""The figure of the frontier: ratio to the minibatch variance against kept bytes, a panel for each
family.
"""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from sketchvar.analysis.frontier.best import BASELINE, FAMILIES, find_envelope
from sketchvar.analysis.picture import Facet, picture, take
from sketchvar.analysis.picture.series import clip_bars
from sketchvar.analysis.style import PAGE, UNIT_LINE, Style, look, plain_ticks

TICKS = (0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1)
TITLES = {
    "sampled rows": "rows of X",
    "row sketches": "sums of rows",
    "features": "fewer features",
    "rounding": "fewer bits, alone and after a sample or sketch",
}


def by_family(rows: pd.DataFrame, options: Mapping[str, Any]) -> list[Facet]:
    """A panel for each family that there is, which has the baseline and the least of all too."""
    asked = options.get("family")
    families = [f for f in FAMILIES if f in set(rows["family"])] if asked is None else [asked]
    if unknown := set(families) - set(rows["family"]):
        there = ", ".join(dict.fromkeys(rows["family"]))
        raise ValueError(f"no family {min(unknown)!r} in these rows; there are {there}")
    return [Facet(TITLES.get(f, f), rows, {"family": f}) for f in families]


@picture(
    "estimator", "line", "family", "fraction", "ratio", "stderr", "oracle", "biased",
    width=PAGE, height=3.7, split=by_family, across=2,
)  # fmt: skip
def frontier(ax: Axes, rows: pd.DataFrame, family: str | None = None) -> None:
    """Draw rows of ``frontier`` or its ``average``, of one ``family`` or a panel for each; every
    panel repeats uniform rows and the least ratio of all families.

    Bars are one standard error, where rows know it: estimators share the error of the minibatch
    variance, and differ by less than the bars say.
    """
    shown = rows[rows["ratio"] > 0]
    if shown.empty:
        raise ValueError("no ratio can be drawn: every variance is 0 or not a number")
    baseline = shown[shown["estimator"] == BASELINE].sort_values("fraction")
    start = baseline["fraction"].min() if len(baseline) else 0.0
    least = find_envelope(rows[rows["fraction"] >= start])
    ax.axhline(1, **UNIT_LINE)
    broad: Style = {"color": "0.85", "linewidth": 5, "zorder": 0}
    ax.plot(least["fraction"], least["ratio"], label="least of all, no oracle", **broad)
    if len(baseline):
        thick: Style = {"color": "black", "linewidth": 2.2, "zorder": 5, "label": BASELINE}
        ax.plot(baseline["fraction"], baseline["ratio"], **thick)
    draw_lines(ax, shown[(shown["family"] == family) & (shown["estimator"] != BASELINE)])
    ax.set(xscale="log", yscale="log")
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize=5.5,
        handlelength=2.4, columnspacing=1.0, labelspacing=0.25, frameon=False,
    )  # fmt: skip
    ax.set_xticks(TICKS)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    ax.xaxis.set_minor_locator(NullLocator())
    plain_ticks(ax.yaxis)
    ax.set_ylim(shown["ratio"].min() * 0.7, shown["ratio"].max() * 1.5)
    ax.tick_params(labelbottom=True)
    ax.set(xlabel="bytes kept of X (payload, indices, scales, seed)")
    ax.set_ylabel("estimator variance / minibatch variance (by example)")


def draw_lines(ax: Axes, rows: pd.DataFrame) -> None:
    """One line per estimator, or several that coincide: dotted for an oracle, dash-dotted for a
    biased one.
    """
    for name, part in rows.groupby("line", sort=False):
        part = part.sort_values("fraction")
        colour, marker = look([part["estimator"].iloc[0]])[part["estimator"].iloc[0]]
        oracle, biased = bool(part["oracle"].iloc[0]), bool(part["biased"].iloc[0])
        drawn = " (draws)" if part["stderr"].any() else ""
        note = " (oracle)" if oracle else " (biased)" if biased else drawn
        style: Style = {
            "marker": marker,
            "linestyle": ":" if oracle else "-." if biased else "-",
            "color": colour,
            "linewidth": 1,
            "elinewidth": 0.5,
            "markersize": 3,
            "markeredgewidth": 0,
        }
        bars = clip_bars(part["ratio"], take(part, "ratio_stderr"))
        ax.errorbar(
            part["fraction"], part["ratio"], bars, label=fill(str(name), 32) + note, **style
        )
