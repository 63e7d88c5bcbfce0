"""Pictures of benches: rows in, Figure out."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sketchvar.analysis.style import PAGE, PALETTE, in_paper_style, legend_above, plain_ticks


@in_paper_style
def layer_times(rows: pd.DataFrame) -> Figure:
    """Time over nn.Linear's by estimator, one panel per shape, a colour per rate with its theory as
    a line.
    """
    train = rows[rows["mode"] == "train"]
    names = list(train.groupby("estimator")["ratio"].min().sort_values().index)
    shapes = list(train.groupby(["rows", "p", "q"], sort=False))
    rates = sorted(set(train["rate"]))
    size = (PAGE, 1.2 + 0.16 * len(names))
    figure, grid = plt.subplots(
        1, len(shapes), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (shape, group) in zip(grid[0], shapes, strict=True):
        for rate, colour in zip(rates, PALETTE, strict=False):
            part = group[group["rate"] == rate]
            bars = [part["ratio"] - part["low"], part["high"] - part["ratio"]]
            places = [names.index(name) for name in part["estimator"]]
            points = {"fmt": "o", "color": colour, "markersize": 3, "elinewidth": 0.8}
            axes.errorbar(
                part["ratio"], places, xerr=bars, label=f"rate {rate:g}, theory as a line", **points
            )
            axes.axvline(part["theory"].iloc[0], color=colour, linewidth=0.8)
        axes.set(
            title="{} × {} → {}".format(*shape),
            xscale="log",
            yticks=range(len(names)),
            yticklabels=names,
        )
        plain_ticks(axes.xaxis)
    grid[0, 0].invert_yaxis()
    figure.supxlabel("time of forward and backward / nn.Linear (median, quartiles)", fontsize=8)
    legend_above(figure, grid[0, 0])
    return figure


@in_paper_style
def peak_memory(rows: pd.DataFrame) -> Figure:
    """Peak memory over the plain step's by choice, one panel per batch size, theory as a mark on
    it.
    """
    labels = [
        name if name == "plain" else f"{name} {r:g}"
        for name, r in zip(rows.estimator, rows.rate, strict=True)
    ]
    kind = rows["checkpointing"].map({False: "activations kept", True: "activation checkpointing"})
    rows = rows.assign(choice=labels, kind=kind)
    batches = list(rows.groupby("batch", sort=False))
    size = (PAGE, 1.1 + 0.3 * len(set(labels)))
    figure, grid = plt.subplots(
        1, len(batches), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (batch, part) in zip(grid[0], batches, strict=True):
        sns.barplot(
            part, x="ratio", y="choice", hue="kind", ax=axes, legend=bool(axes is grid[0, 0])
        )
        plain = part[~part["checkpointing"]]
        axes.plot(
            plain["theory"], plain["choice"], "k|", markersize=10, label="theory, activations kept"
        )
        axes.set(title=f"batch {batch} × {part['length'].iloc[0]} tokens", xlabel="", ylabel="")
    figure.supxlabel("peak memory / plain", fontsize=8)
    legend_above(figure, grid[0, 0])
    grid[0, 0].get_legend().remove()
    return figure
