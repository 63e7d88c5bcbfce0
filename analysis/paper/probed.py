"""Figures of what one probed run tells: which axis to compress, where in the network, and α, by
layer and task.
"""

import re

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sketchvar.analysis.noise.select import at_rate
from sketchvar.analysis.style import COLUMN, PAGE, UNIT_LINE, legend_above, look, plain_ticks, style

RATIO = "estimator variance /\nminibatch variance (example)"


def by_kept(rows: pd.DataFrame) -> Figure:
    """Rows of ``frontier``: ratio against the fraction of X's bytes that is kept, median and
    quartiles over layers.
    """
    style()
    looks = look(list(dict.fromkeys(rows["estimator"])))
    figure, axes = plt.subplots(figsize=(COLUMN * 1.5, 3.4), layout="constrained")
    for name, (colour, marker) in looks.items():
        by = rows[rows["estimator"] == name].groupby("budget", dropna=False)
        kept, ratio = by["fraction"].median(), by["ratio"].median()
        bars = [ratio - by["ratio"].quantile(0.25), by["ratio"].quantile(0.75) - ratio]
        axes.errorbar(
            kept,
            ratio,
            bars,
            fmt=f"{marker}-",
            color=colour,
            label=name,
            linewidth=1,
            elinewidth=0.6,
        )
    axes.axhline(1, **UNIT_LINE)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="bytes kept / bytes of X",
        ylabel=f"{RATIO},\nmedian and quartiles",
    )
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    legend_above(figure, axes)
    return figure


def block(layer: str) -> float:
    """The number of the block that a layer is in; NaN for one outside the blocks."""
    found = re.search(r"\.(\d+)\.", f".{layer}.")
    return float(found[1]) if found else float("nan")


def by_depth(rows: pd.DataFrame, rate: float) -> Figure:
    """Ratio by block at the last measured step, a point for every layer and a line through the
    block medians.
    """
    style()
    shown = at_rate(rows[rows["step"] == rows["step"].max()], rate)
    shown = shown.assign(block=shown["layer"].map(block)).dropna(subset="block")
    figure, axes = plt.subplots(figsize=(COLUMN * 1.3, 2.8), layout="constrained")
    for name, (colour, marker) in look(list(dict.fromkeys(rows["estimator"]))).items():
        part = shown[shown["estimator"] == name]
        axes.plot(part["block"], part["ratio"], marker, color=colour, markersize=2.5, alpha=0.4)
        middle = part.groupby("block")["ratio"].median()
        axes.plot(middle.index, middle, f"{marker}-", color=colour, label=name, linewidth=1)
    axes.axhline(1, **UNIT_LINE)
    axes.set(yscale="log", xlabel="block, from the input", ylabel=f"{RATIO}, rate {rate:g}")
    axes.set_xticks(sorted(set(shown["block"])))
    plain_ticks(axes.yaxis)
    legend_above(figure, axes)
    return figure


def alpha(rows: pd.DataFrame) -> Figure:
    """α of every layer, first to last, in one panel per task; a line for each measured step."""
    style()
    tasks = list(dict.fromkeys(rows["task"]))
    size = (PAGE, 0.9 + 1.9 * len(tasks))
    figure, panels = plt.subplots(
        len(tasks), 1, figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    for axes, task in zip(panels[:, 0], tasks, strict=True):
        once = rows[rows["task"] == task].drop_duplicates(["layer", "step"])
        layers, steps = list(dict.fromkeys(once["layer"])), sorted(set(once["step"]))
        for step, colour in zip(steps, sns.color_palette("viridis", len(steps)), strict=True):
            axes.plot(
                range(len(layers)),
                once[once["step"] == step]["alpha"],
                ".-",
                color=colour,
                label=f"step {step}",
            )
        axes.set(
            yscale="log", title=task, ylabel="α = ‖G‖² / (‖X‖²‖Y‖²)", xlabel="layer, from the input"
        )
        axes.legend(fontsize=6, ncols=len(steps))
    return figure
