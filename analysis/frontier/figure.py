"""The figure of the frontier: ratio to the minibatch variance against kept bytes, a panel for each
family.
"""

from textwrap import fill

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from sketchvar.analysis.frontier.best import BASELINE, FAMILIES, find_envelope
from sketchvar.analysis.style import PAGE, UNIT_LINE, Style, in_paper_style, look, plain_ticks

TICKS = (0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1)
TITLES = {
    "sampled rows": "rows of X",
    "row sketches": "sums of rows",
    "features": "fewer features",
    "rounding": "fewer bits, alone and after a sample or sketch",
}


@in_paper_style
def frontier(rows: pd.DataFrame) -> Figure:
    """Rows of ``frontier`` or its ``average``; every panel repeats uniform rows and the least ratio
    of all families. Bars are one standard error, where rows know it: estimators share the error of
    the minibatch variance, and differ by less than the bars say.
    """
    figure, grid = plt.subplots(
        2, 2, figsize=(PAGE, 7), sharex=True, sharey=True, layout="constrained"
    )
    shown = rows[rows["ratio"] > 0]
    baseline = shown[shown["estimator"] == BASELINE].sort_values("fraction")
    least = find_envelope(rows[rows["fraction"] >= baseline["fraction"].min()])
    for axes, family in zip(grid.flat, FAMILIES, strict=True):
        axes.axhline(1, **UNIT_LINE)
        axes.plot(
            least["fraction"],
            least["ratio"],
            color="0.85",
            linewidth=5,
            zorder=0,
            label="least of all, no oracle",
        )
        axes.plot(
            baseline["fraction"],
            baseline["ratio"],
            color="black",
            linewidth=2.2,
            label=BASELINE,
            zorder=5,
        )
        lines(axes, shown[(shown["family"] == family) & (shown["estimator"] != BASELINE)])
        axes.set(title=TITLES[family], xscale="log", yscale="log")
        axes.legend(
            loc="upper right",
            fontsize=5.5,
            handlelength=2.4,
            labelspacing=0.25,
            borderpad=0.3,
            framealpha=0.9,
        )
    axes = grid.flat[0]
    axes.set_xticks(TICKS)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.xaxis.set_minor_locator(NullLocator())
    plain_ticks(axes.yaxis)
    axes.set_ylim(max(shown["ratio"].min() * 0.7, 3e-3), shown["ratio"].max() * 20)
    figure.supxlabel("bytes kept of X (payload, indices, scales, seed)", fontsize=8)
    figure.supylabel("estimator variance / minibatch variance (by example)", fontsize=8)
    return figure


def lines(axes: Axes, rows: pd.DataFrame) -> None:
    """One line per estimator, or several that coincide: dotted for an oracle, dash-dotted for a
    biased one.
    """
    for name, (colour, marker) in look(list(dict.fromkeys(rows["line"]))).items():
        part = rows[rows["line"] == name].sort_values("fraction")
        oracle, biased = bool(part["oracle"].iloc[0]), bool(part["biased"].iloc[0])
        note = (
            " (oracle)"
            if oracle
            else " (biased)"
            if biased
            else " (draws)"
            if part["stderr"].any()
            else ""
        )
        dashes = ":" if oracle else "-." if biased else "-"
        error = part.get("ratio_stderr", pd.Series(float("nan"), part.index)).astype(float)
        bars = [error.clip(upper=0.95 * part["ratio"]), error]  # the axis is logarithmic
        style: Style = {
            "marker": marker,
            "linestyle": dashes,
            "color": colour,
            "linewidth": 1,
        }
        style |= {"markersize": 3, "markeredgewidth": 0}
        axes.plot(part["fraction"], part["ratio"], label=fill(name, 40) + note, **style)
        thin: Style = {"fmt": "none", "ecolor": colour, "elinewidth": 0.5}
        axes.errorbar(part["fraction"], part["ratio"], bars, **thin)
