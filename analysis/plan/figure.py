"""The figure of a plan: the total of its objective against memory, for plans, one choice for all
layers, and uniform rows.
"""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sketchvar.analysis.style import PAGE, UNIT_LINE, Style, in_paper_style, legend_above, look

WAYS: list[dict[str, Any]] = [{}, {"linestyle": "--"}, {"linestyle": ":"}]
LABEL = "variance / minibatch variance (by example), mean over layers"


@in_paper_style
def ratio_by_memory(table: pd.DataFrame, chosen: Mapping[str, Any], label: str = LABEL) -> Figure:
    """A table of ``trace_curves``: totals on the steps that were held out, with bars of one
    standard error where it is known; on those that were chosen on where nothing was held out. Stars
    mark the plan that was made (its ``totals``): filled as it does on those steps, open as it did
    where it was chosen.
    """
    figure, axes = plt.subplots(figsize=(PAGE * 0.7, 3.2), layout="constrained")
    held_out = "held_out" in table and bool(table["held_out"].notna().any())
    value = "held_out" if held_out else "ratio"
    looks = look(list(dict.fromkeys(table["method"])))
    for (name, (colour, marker)), way in zip(looks.items(), WAYS, strict=False):
        part = table[(table["method"] == name) & (table[value] > 0)]
        bars = part.get(f"{value}_stderr", pd.Series(float("nan"), part.index)).astype(float)
        style: Style = {
            "marker": marker,
            "color": colour,
            "markersize": 3,
            "elinewidth": 0.7,
            **way,
        }
        axes.errorbar(part["fraction"], part[value], bars, label=name, **style)
    axes.axhline(1, **UNIT_LINE)
    for column, face in (("ratio", "white" if held_out else "black"), ("held_out", "black")):
        if found := chosen.get(column):
            words = "this plan" if face == "black" else "this plan, where it was chosen"
            star: Style = {
                "color": "black",
                "markerfacecolor": face,
                "markersize": 7,
                "zorder": 5,
            }
            axes.plot(chosen["fraction"], found, "*", label=words, linestyle="", **star)
    axes.set(
        xscale="log", yscale="log", xlabel="bytes kept, of those that exact training keeps of X"
    )
    words = label + (", on steps that no plan was chosen on" if held_out else "")
    axes.set_ylabel(fill(words, 40))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    legend_above(figure, axes)
    return figure
