"""The figure of the truth: closed forms over the redrawn variance."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from sketchvar.analysis.style import (
    PAGE,
    UNIT_LINE,
    in_paper_style,
    legend_above,
    look,
    plain_ticks,
)
from sketchvar.analysis.truth.ratios import divide_by_redrawn


@in_paper_style
def closed_forms_and_truth(rows: pd.DataFrame) -> Figure:
    """Closed forms over the redrawn variance for every layer, ± 2 standard errors of that ratio;
    rows of ``truth``.
    """
    rows = divide_by_redrawn(rows)
    figure, axes = plt.subplots(figsize=(PAGE * 0.7, 1.1 + 0.17 * len(rows)), layout="constrained")
    for apart, (form, (colour, marker)) in zip(
        (-0.17, 0.17), look(["example", "row"]).items(), strict=True
    ):
        axes.errorbar(
            rows[f"{form}_ratio"],
            [place + apart for place in range(len(rows))],
            xerr=2 * rows[f"{form}_ratio_stderr"],
            fmt=marker,
            color=colour,
            label=f"by {form} ± 2 stderr",
            markersize=3.5,
            elinewidth=0.8,
        )
    axes.axvline(1, **UNIT_LINE)
    axes.set(xscale="log", xlabel=f"closed form / variance of {rows['draws'].max()} redraws")
    plain_ticks(axes.xaxis)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.set(yticks=range(len(rows)), yticklabels=list(rows["layer"]), ylim=(len(rows) - 0.4, -0.6))
    legend_above(figure, axes)
    return figure
