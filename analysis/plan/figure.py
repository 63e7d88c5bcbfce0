"""The figure of a plan: the total of its objective against memory, for plans, one choice for all
layers, and uniform rows.
"""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from sketchvar.analysis.picture import picture, take
from sketchvar.analysis.style import MARKERS, PALETTE, UNIT_LINE, Style, plain_ticks

WAYS = ("-", "--", ":")
LABEL = "variance / minibatch variance (by example), mean over layers"


@picture("method", "fraction", "ratio", of="method", height=3.2)
def ratio_by_memory(
    ax: Axes, table: pd.DataFrame, chosen: Mapping[str, Any], label: str = LABEL
) -> None:
    """Draw a table of ``trace_curves``: totals on the steps that were held out, with bars of one
    standard error where it is known; on those that were chosen on where nothing was held out.

    Stars mark the plan that was ``chosen`` (its ``totals``): filled as it does on those steps, open
    as it did where it was chosen. ``label`` says what the totals are of.
    """
    held_out = "held_out" in table and bool(table["held_out"].notna().any())
    value = "held_out" if held_out else "ratio"
    for i, (name, rows) in enumerate(table.groupby("label", sort=False)):
        part = rows[rows[value] > 0]
        style: Style = {"color": PALETTE[i % 10], "marker": MARKERS[i % len(MARKERS)]}
        style |= {"markersize": 3, "elinewidth": 0.7, "linestyle": WAYS[i % len(WAYS)]}
        bars = take(part, f"{value}_stderr")
        ax.errorbar(part["fraction"], part[value], bars, label=str(name), **style)
    ax.axhline(1, **UNIT_LINE)
    for column, face in (("ratio", "white" if held_out else "black"), ("held_out", "black")):
        if found := chosen.get(column):
            words = "this plan" if face == "black" else "this plan, where it was chosen"
            star: Style = {"color": "black", "markerfacecolor": face, "markersize": 7, "zorder": 5}
            ax.plot(chosen["fraction"], found, "*", label=words, linestyle="", **star)
    ax.set(xscale="log", yscale="log", xlabel="bytes kept, of those that exact training keeps of X")
    words = label + (", on steps that no plan was chosen on" if held_out else "")
    ax.set_ylabel(fill(words, 40))
    plain_ticks(ax.xaxis)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
    plain_ticks(ax.yaxis)
