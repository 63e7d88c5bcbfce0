"""Figures on the minibatch variance: rows in, Figure out; no statistics here."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from analysis.figures import COLUMN, PAGE, UNIT_LINE, legend_above, look, plain_ticks, style
from analysis.noise_scale import TOTAL


def closed_forms_and_truth(rows: pd.DataFrame) -> Figure:
    """Closed forms over the redrawn variance for every layer, ± 2 standard errors of that ratio; rows of ``truth``."""
    style()
    rows = rows[rows["redrawn"].notna()]
    figure, axes = plt.subplots(figsize=(PAGE * 0.7, 1.1 + 0.17 * len(rows)), layout="constrained")
    drawn_error = rows["redrawn_stderr"] / rows["redrawn"]
    for apart, (form, (colour, marker)) in zip((-0.17, 0.17), look(["example", "row"]).items(), strict=True):
        ratio = rows[form] / rows["redrawn"]
        error = (drawn_error**2 + (rows[f"{form}_stderr"] / rows[form]) ** 2) ** 0.5
        axes.errorbar(
            ratio,
            [place + apart for place in range(len(rows))],
            xerr=2 * error * ratio,
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


def noise_scale_through_training(table: pd.DataFrame, batch_size: int) -> Figure:
    """B_simple of every layer (thin) and of all together at every measured step; a table of ``noise_scale``."""
    style()
    figure, axes = plt.subplots(figsize=(COLUMN + 0.6, 2.6), layout="constrained")
    steps = sorted(set(table["step"]))
    for i, (name, part) in enumerate(table.groupby("layer", sort=False)):
        places = part["step"].map(steps.index)
        if name == TOTAL:
            axes.plot(places, part["noise_scale"], "o-", color=look([TOTAL])[TOTAL][0], linewidth=1.4, label=TOTAL)
        else:
            label = None if i else "each layer"
            axes.plot(places, part["noise_scale"], ".-", color="0.7", linewidth=0.6, zorder=1, label=label)
    axes.axhline(batch_size, label="batch size", **UNIT_LINE)
    axes.set(xlabel="step (updates, evenly spaced)", ylabel="noise scale $B_{simple}$ (examples)", yscale="log")
    axes.set_xticks(range(len(steps)), [str(step) for step in steps])
    plain_ticks(axes.yaxis)
    legend_above(figure, axes)
    return figure
