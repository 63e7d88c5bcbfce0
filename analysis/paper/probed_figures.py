"""Pictures of what one probed run tells: which axis to compress, where in the network, and α, by
layer and task.
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sketchvar.analysis.paper.probed import select_blocks, summarize_kept
from sketchvar.analysis.style import (
    COLUMN,
    PAGE,
    UNIT_LINE,
    Style,
    in_paper_style,
    legend_above,
    look,
    plain_ticks,
)

RATIO = "estimator variance /\nminibatch variance (example)"


@in_paper_style
def by_kept(rows: pd.DataFrame) -> Figure:
    """Rows of ``frontier``: ratio against the fraction of X's bytes that is kept, median and
    quartiles over layers.
    """
    looks, table = look(list(dict.fromkeys(rows["estimator"]))), summarize_kept(rows)
    figure, axes = plt.subplots(figsize=(COLUMN * 1.5, 3.4), layout="constrained")
    for name, (colour, marker) in looks.items():
        part = table[table["estimator"] == name]
        axes.errorbar(
            part["fraction"],
            part["ratio"],
            [part["ratio"] - part["low"], part["high"] - part["ratio"]],
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


@in_paper_style
def by_depth(rows: pd.DataFrame, rate: float) -> Figure:
    """Ratio by block at the last measured step, a point for every layer and a line through the
    block medians, with the median of the layers' standard errors as bars, where rows know them:
    layers see the same examples.
    """
    shown = select_blocks(rows, rate)
    figure, axes = plt.subplots(figsize=(COLUMN * 1.3, 2.8), layout="constrained")
    for name, (colour, marker) in look(list(dict.fromkeys(rows["estimator"]))).items():
        part = shown[shown["estimator"] == name]
        axes.plot(part["block"], part["ratio"], marker, color=colour, markersize=2.5, alpha=0.4)
        middle = part.drop_duplicates("block").sort_values("block")
        bars = [middle["error"].clip(upper=0.95 * middle["median"]), middle["error"]]
        style: Style = {"color": colour, "label": name, "linewidth": 1, "elinewidth": 0.8}
        axes.errorbar(middle["block"], middle["median"], bars, fmt=f"{marker}-", **style)
    axes.axhline(1, **UNIT_LINE)
    axes.set(yscale="log", xlabel="block, from the input", ylabel=f"{RATIO}, rate {rate:g}")
    axes.set_xticks(sorted(set(shown["block"])))
    plain_ticks(axes.yaxis)
    legend_above(figure, axes)
    return figure


@in_paper_style
def alpha(rows: pd.DataFrame) -> Figure:
    """α of every layer, first to last, in one panel per task; a line for each measured step, with
    bars of one standard error where rows know it.
    """
    tasks = list(dict.fromkeys(rows["task"]))
    size = (PAGE, 0.9 + 1.9 * len(tasks))
    figure, panels = plt.subplots(
        len(tasks), 1, figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    for axes, task in zip(panels[:, 0], tasks, strict=True):
        once = rows[rows["task"] == task].drop_duplicates(["layer", "step"])
        steps = sorted(set(once["step"]))
        for step, colour in zip(steps, sns.color_palette("viridis", len(steps)), strict=True):
            part = once[once["step"] == step]
            error = part.get("alpha_stderr", pd.Series(float("nan"), part.index)).astype(float)
            bars = [error.clip(upper=0.95 * part["alpha"]), error]
            style: Style = {"color": colour, "label": f"step {step}", "elinewidth": 0.7}
            axes.errorbar(range(len(part)), part["alpha"], bars, fmt=".-", **style)
        axes.set(
            yscale="log", title=task, ylabel="α = ‖G‖² / (‖X‖²‖Y‖²)", xlabel="layer, from the input"
        )
        axes.legend(fontsize=6, ncols=len(steps))
    return figure
