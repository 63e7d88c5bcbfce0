"""The figure of a plan: total ratio against memory, for plans, one choice for all layers, and
uniform rows.
"""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sketchvar.analysis.plan.totals import Totals
from sketchvar.analysis.style import PAGE, UNIT_LINE, in_paper_style, legend_above, look


@in_paper_style
def ratio_by_memory(table: pd.DataFrame, chosen: Totals) -> Figure:
    """A table of ``trace_curves``; a star marks the plan that was made. The best single
    choice goes in steps, from one to the next; plans fill what is between.
    """
    figure, axes = plt.subplots(figsize=(PAGE * 0.7, 3.2), layout="constrained")
    looks = look(list(dict.fromkeys(table["method"])))
    ways: list[dict[str, Any]] = [
        {},
        {"linestyle": "--", "drawstyle": "steps-post"},
        {"linestyle": ":"},
    ]
    for (name, (colour, marker)), way in zip(looks.items(), ways, strict=False):
        part = table[(table["method"] == name) & (table["ratio"] > 0)]
        axes.plot(
            part["fraction"],
            part["ratio"],
            marker=marker,
            color=colour,
            label=name,
            markersize=3,
            **way,
        )
    axes.axhline(1, **UNIT_LINE)
    if chosen.ratio > 0:
        axes.plot(
            chosen.fraction,
            chosen.ratio,
            "*",
            color="black",
            markersize=7,
            label="this plan",
            zorder=5,
        )
    axes.set(
        xscale="log", yscale="log", xlabel="bytes kept, of those that exact training keeps of X"
    )
    axes.set_ylabel("Σ variance / Σ minibatch variance (by example)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    legend_above(figure, axes)
    return figure
