"""Figures of what sweeps tell: score by rate, matmuls beside the paper's, from scratch or not, and
the damage by block.

Rows are those of ``train``, tables those of ``outcome.summary`` or ``predictions``, with a column
``task``.
"""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sketchvar.analysis.paper.recorded import MATMULS
from sketchvar.analysis.style import (
    COLUMN,
    PAGE,
    PALETTE,
    in_paper_style,
    label_choice,
    legend_above,
    look,
    plain_ticks,
)

ZERO: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": "--", "zorder": 1}


@in_paper_style
def score(tables: pd.DataFrame) -> Figure:
    """Final metric against rate, mean and 95 % interval over seeds, a panel per task; exact
    training as a band.
    """
    tasks = list(dict.fromkeys(tables["task"]))
    looks = look([name for name in dict.fromkeys(tables["estimator"]) if name != "exact"])
    size = (max(COLUMN * 1.4, PAGE * len(tasks) / 2.2), 3)
    figure, panels = plt.subplots(1, len(tasks), figsize=size, squeeze=False, layout="constrained")
    for axes, task in zip(panels[0], tasks, strict=True):
        table = tables[tables["task"] == task]
        plain = table[(table["estimator"] == "exact") & ~table["checkpointing"]]
        exact = plain[plain["batch"] == plain["batch"].max()].iloc[0]
        axes.axhspan(exact["metric_low"], exact["metric_high"], color="0.9", zorder=0)
        axes.axhline(exact["metric"], color="black", linewidth=1, label="exact, 95 %")
        for i, (name, (colour, marker)) in enumerate(looks.items()):
            part = table[table["estimator"] == name].sort_values("rate")
            places = part["rate"] * 1.03 ** (
                i - len(looks) / 2
            )  # intervals stay visible beside each other
            draw_interval(axes, places, part, "metric", colour, f"{marker}-", name)
        axes.set(title=task, xscale="log", xlabel="rate (fraction of X that is kept)")
        plain_ticks(axes.xaxis)
    panels[0][0].set_ylabel("final metric, mean and 95 % over seeds")
    legend_above(figure, panels[0][0])
    return figure


def draw_interval(
    axes: Axes,
    places: pd.Series,
    table: pd.DataFrame,
    value: str,
    colour: object,
    mark: str,
    label: str,
) -> None:
    """Means with their intervals."""
    bars = [table[value] - table[f"{value}_low"], table[f"{value}_high"] - table[value]]
    axes.errorbar(
        places, table[value], bars, fmt=mark, color=colour, label=label, linewidth=1, capsize=2
    )


@in_paper_style
def matmuls(table: pd.DataFrame) -> Figure:
    """Score less that of exact training (× 100) and time over exact, ours with intervals beside the
    paper's one run.
    """
    ours = table[(table["estimator"] != "exact")]
    names = [label_choice(*pair) for pair in zip(ours["estimator"], ours["rate"], strict=True)]
    keys = ["estimator", "rate"]
    theirs = ours[keys].merge(MATMULS, how="left", on=keys)
    exact = MATMULS.iloc[0]
    figure, panels = plt.subplots(
        1,
        2,
        figsize=(PAGE, 1.0 + 0.22 * len(ours)),
        sharey=True,
        layout="constrained",
        width_ratios=(3, 2),
    )
    bars = [
        ours["metric_exact"] - ours["metric_exact_low"],
        ours["metric_exact_high"] - ours["metric_exact"],
    ]
    places = range(len(ours))
    panels[0].errorbar(
        100 * ours["metric_exact"],
        places,
        xerr=[100 * b for b in bars],
        fmt="o",
        capsize=2,
        label="ours, 95 %",
    )
    hollow = {"color": PALETTE[1], "marker": "D", "linestyle": "", "markerfacecolor": "none"}
    panels[0].plot(
        theirs["score"] - exact["score"], places, label="paper, CoLA, one run, best epoch", **hollow
    )
    panels[1].plot(ours["seconds"], places, "o", label="ours")
    panels[1].plot(theirs["seconds"] / exact["seconds"], places, **hollow)
    for axes, at, text in zip(
        panels, (0, 1), ("score − exact, × 100", "time / exact"), strict=True
    ):
        axes.axvline(at, **ZERO)
        axes.set(xlabel=text)
    panels[0].set(yticks=places, yticklabels=names)
    panels[0].invert_yaxis()
    legend_above(figure, panels[0])
    return figure


@in_paper_style
def predicted(tables: pd.DataFrame) -> Figure:
    """Predicted against observed final loss, a panel per task; the bar is the 95 % interval of
    observed − predicted.

    Hollow where no exact run had so small a batch, so that the prediction is only a bound from
    below.
    """
    tasks = list(dict.fromkeys(tables["task"]))
    looks = look(list(dict.fromkeys(tables["estimator"])))
    size = (max(COLUMN, PAGE * len(tasks) / 2.2), 3.2)
    figure, panels = plt.subplots(1, len(tasks), figsize=size, squeeze=False, layout="constrained")
    for axes, task in zip(panels[0], tasks, strict=True):
        part = tables[tables["task"] == task]
        for line in part.to_dict("records"):
            colour, marker = looks[line["estimator"]]
            bars = [[line["error"] - line["error_low"]], [line["error_high"] - line["error"]]]
            fill = colour if line["inside"] else "none"
            place, label = (line["predicted"], line["observed"]), line["estimator"]
            axes.errorbar(
                *place,
                bars,
                fmt=marker,
                color=colour,
                markerfacecolor=fill,
                elinewidth=0.6,
                label=label,
            )
        both = part[["predicted", "observed"]]
        ends = [both.min().min(), both.max().max()]
        axes.plot(ends, ends, **ZERO)
        axes.set(title=task, xlabel="predicted final loss", ylabel="observed final loss")
    once = dict(zip(*reversed(panels[0][0].get_legend_handles_labels()), strict=True))
    figure.legend(once.values(), once.keys(), loc="outside upper center", ncols=3, frameon=False)
    return figure


@in_paper_style
def differences(tables: pd.DataFrame) -> Figure:
    """Final loss less exact training's, mean and 95 % over paired seeds, a panel per task."""
    tasks = list(dict.fromkeys(tables["task"]))
    shown = tables[tables["estimator"] != "exact"]
    names = list(dict.fromkeys(zip(shown["estimator"], shown["rate"], strict=True)))
    size = (PAGE, 0.9 + 0.22 * len(names))
    figure, panels = plt.subplots(
        1, len(tasks), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, task in zip(panels[0], tasks, strict=True):
        part = shown[shown["task"] == task]
        places = [names.index(pair) for pair in zip(part["estimator"], part["rate"], strict=True)]
        value = part["validation_exact"]
        bars = [value - part["validation_exact_low"], part["validation_exact_high"] - value]
        axes.errorbar(value, places, xerr=bars, fmt="o", capsize=2)
        axes.axvline(0, **ZERO)
        axes.set(title=task, xlabel="final loss − exact, paired, 95 %")
    panels[0][0].set(yticks=range(len(names)), yticklabels=[label_choice(*pair) for pair in names])
    panels[0][0].invert_yaxis()
    return figure


@in_paper_style
def damage(table: pd.DataFrame) -> Figure:
    """Final loss less exact training's when only one block is sketched, by block; mean and 95 %
    over paired seeds.
    """
    shown = table[table["estimator"] != "exact"]
    figure, axes = plt.subplots(figsize=(COLUMN * 1.3, 2.6), layout="constrained")
    looks = look(list(dict.fromkeys(shown["estimator"])))
    for i, (name, (colour, marker)) in enumerate(looks.items()):
        part = shown[shown["estimator"] == name]
        places = part["block"] + 0.1 * (i - (len(looks) - 1) / 2)
        draw_interval(
            axes,
            places,
            part,
            "validation_exact",
            colour,
            marker,
            label_choice(name, part["rate"].iloc[0]),
        )
    axes.axhline(0, **ZERO)
    axes.set(
        xlabel="the one block that is sketched, from the input",
        ylabel="final loss − exact,\npaired, 95 %",
    )
    axes.set_xticks(sorted(set(shown["block"])))
    legend_above(figure, axes)
    return figure
