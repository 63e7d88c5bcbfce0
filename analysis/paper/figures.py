"""Pictures of the paper's items that are neither probed nor trained: rows in, Figure out."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sketchvar.analysis.paper.recorded import MATMULS, MEMORY
from sketchvar.analysis.style import (
    COLUMN,
    PAGE,
    PALETTE,
    UNIT_LINE,
    in_paper_style,
    legend_above,
    look,
    plain_ticks,
)

CURVES = {  # column -> how it is drawn
    "d_sgd": ("D²_SGD, rows as if independent (paper)", PALETTE[0], "o", "-"),
    "d_example": ("minibatch variance, by example", PALETTE[0], "s", "--"),
    "d_rmm": ("D²_RMM (paper): sampling by norms", PALETTE[1], "o", "-"),
    "variance": ("variance of the Gaussian sketch", PALETTE[3], "D", "--"),
}
RATIOS = {
    "ratio_paper": ("as the paper computes it", PALETTE[1], "o", "-"),
    "ratio_row": ("Gaussian, rows as if independent", PALETTE[3], "D", "-"),
    "ratio_example": ("Gaussian, by example", PALETTE[3], "s", "--"),
    "bound": ("bound (1 + α) / α", "black", "", "-"),
}


@in_paper_style
def averaging(rows: pd.DataFrame) -> Figure:
    """Variance over that of a single sketch, against the number of sketches; the line is one sketch
    as large.
    """
    figure, axes = plt.subplots(figsize=(COLUMN * 1.3, 3), layout="constrained")
    for i, (name, (colour, marker)) in enumerate(
        look(list(dict.fromkeys(rows["estimator"]))).items()
    ):
        part = rows[rows["estimator"] == name]
        axes.plot(part["count"], part["one"] / part["single"], color=colour, linewidth=1)
        bars = 2 * part["stderr"] / part["single"]
        places = part["count"] * 1.04 ** (i - 1)  # beside each other
        axes.errorbar(
            places, part["variance"] / part["single"], bars, fmt=marker, color=colour, label=name
        )
    counts = sorted(set(rows["count"]))
    axes.plot(counts, [1 / m for m in counts], "k--", linewidth=0.8, label="1 / m")
    text = (
        f"sketches of rate {rows['rate'].iloc[0]:g} that are averaged (points, ± 2 stderr),\nor one"
        " as large (lines)"
    )
    axes.set(xscale="log", yscale="log", xlabel=text, ylabel="variance / that of a single sketch")
    axes.set_xticks(counts, [str(m) for m in counts])
    axes.minorticks_off()
    plain_ticks(axes.yaxis)
    legend_above(figure, axes)
    return figure


@in_paper_style
def memory(rows: pd.DataFrame) -> Figure:
    """Rows of ``bench memory``: peak over the plain step's against the rate, a line per batch; the
    paper's in grey.
    """
    figure, axes = plt.subplots(figsize=(COLUMN * 1.5, 3), layout="constrained")
    for i, (_, part) in enumerate(MEMORY.groupby(["task", "batch"], sort=False)):
        label = "paper: eight tasks, batch 16 to 256, ± 0.1 GiB" if i == 0 else None
        axes.plot(part["rate"], part["ratio"], color="0.75", linewidth=0.8, label=label)
    shown = rows[~rows["checkpointing"]]
    batches = sorted(set(shown["batch"]))
    names = [name for name in dict.fromkeys(shown["estimator"]) if name != "plain"]
    for batch, colour in zip(batches, sns.color_palette("colorblind", len(batches)), strict=True):
        for name, dashes in zip(names, ("-", "--", ":", "-."), strict=False):
            part = shown[
                (shown["batch"] == batch) & shown["estimator"].isin(["plain", name])
            ].sort_values("rate")
            axes.plot(
                part["rate"],
                part["ratio"],
                f"o{dashes}",
                color=colour,
                label=f"{name}, batch {batch}",
            )
    axes.set(
        xscale="log",
        xlabel="rate (fraction of X that is kept)",
        ylabel="peak memory / plain training's",
    )
    plain_ticks(axes.xaxis)
    axes.legend(fontsize=6)
    return figure


@in_paper_style
def throughput(rows: pd.DataFrame) -> Figure:
    """Throughput over the plain step's by rate, median and quartiles; the paper's, from its
    training times, hollow.
    """
    figure, axes = plt.subplots(figsize=(COLUMN * 1.3, 3), layout="constrained")
    for name, (colour, marker) in look(list(dict.fromkeys(rows["estimator"]))).items():
        part = rows[rows["estimator"] == name].sort_values("rate")
        bars = [part["ratio"] - part["low"], part["high"] - part["ratio"]]
        axes.errorbar(
            part["rate"],
            part["ratio"],
            bars,
            fmt=f"{marker}-",
            color=colour,
            label=name,
            linewidth=1,
        )
        theirs = MATMULS[MATMULS["estimator"] == name]
        ratio = MATMULS["seconds"].iloc[0] / theirs["seconds"]
        label = "hollow: the paper's, RoBERTa-base on its GPU" if name == "gaussian" else None
        axes.plot(theirs["rate"], ratio, marker, color=colour, markerfacecolor="none", label=label)
    axes.axhline(1, color="black", linewidth=0.8, linestyle="--")
    text = f"throughput / plain step's ({rows['plain'].iloc[0]:.3g} examples/s)"
    axes.set(xscale="log", xlabel="rate (fraction of X that is kept)", ylabel=text)
    plain_ticks(axes.xaxis)
    legend_above(figure, axes)
    return figure


@in_paper_style
def variance(rows: pd.DataFrame, layer: str) -> Figure:
    """Rows of ``variance.correct`` at one rate: the quantities on the left, their normalised ratios
    and the bound right.
    """
    shown = rows[rows["layer"] == layer].sort_values("step")
    steps = range(len(shown))
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 3.6), layout="constrained")
    for axes, curves in zip(panels, (CURVES, RATIOS), strict=True):
        for column, (label, colour, marker, dashes) in curves.items():
            hollow = (
                {"markersize": 7, "markerfacecolor": "none"}
                if column in ("d_rmm", "ratio_paper")
                else {}
            )
            axes.plot(
                steps,
                shown[column],
                dashes,
                marker=marker,
                color=colour,
                label=label,
                linewidth=1,
                **hollow,
            )
        axes.set(yscale="log", xlabel="step (updates, evenly spaced)")
        axes.set_xticks(steps, [f"{step}" for step in shown["step"]])
        axes.legend(fontsize=6, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
        plain_ticks(axes.yaxis)
    panels[0].set_ylabel("E‖Ĝ − G‖², total over entries")
    panels[1].set_ylabel("ratio × k / (n − 1)")
    panels[1].axhline(1, **UNIT_LINE)
    figure.suptitle(f"{layer}, rate {shown['rate'].iloc[0]:g}", fontsize=8)
    return figure
