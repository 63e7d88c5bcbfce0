"""The figure of several frontiers beside each other: the least ratio that bytes buy in each."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from sketchvar.analysis.frontier.best import BASELINE, find_envelope
from sketchvar.analysis.frontier.figure import TICKS
from sketchvar.analysis.picture import picture, take, together
from sketchvar.analysis.picture.series import clip_bars
from sketchvar.analysis.style import COLOURS, COLUMN, UNIT_LINE, Style, plain_ticks


@picture(
    "of", "estimator", "fraction", "ratio", "oracle", "biased",
    width=COLUMN * 1.4, height=3.4, split=together,
)  # fmt: skip
def frontiers_across(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the least ratio of all that a layer can use against the bytes kept, a colour for every
    frontier (``of``), and the baseline of each, uniform rows, dashed: rows of several ``average``.
    Bars are one standard error, where rows know it.
    """
    if not (rows["ratio"] > 0).any():
        raise ValueError("no ratio can be drawn: every variance is 0 or not a number")
    for i, (name, part) in enumerate(rows.groupby("of", sort=False)):
        colour = COLOURS[i % len(COLOURS)]
        least = find_envelope(part)
        bars = clip_bars(least["ratio"], take(least, "ratio_stderr"))
        style: Style = {"color": colour, "linewidth": 1.6, "elinewidth": 0.6, "label": str(name)}
        ax.errorbar(least["fraction"], least["ratio"], bars, **style)
        base = part[(part["estimator"] == BASELINE) & (part["ratio"] > 0)].sort_values("fraction")
        ax.plot(base["fraction"], base["ratio"], color=colour, linewidth=1, linestyle="--")
    ax.axhline(1, **UNIT_LINE | {"linestyle": ":"})
    ax.set(xscale="log", yscale="log", xlabel="bytes kept of X")
    ax.set_ylabel(f"least variance / minibatch variance (example); dashed: {BASELINE}")
    ax.set_xticks(TICKS)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    ax.xaxis.set_minor_locator(NullLocator())
    plain_ticks(ax.yaxis)
