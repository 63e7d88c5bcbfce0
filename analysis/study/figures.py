"""Figures of a run: rows in, Figure out."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from sketchvar.analysis.noise.scale import TOTAL
from sketchvar.analysis.noise.select import at_rate
from sketchvar.analysis.style import (
    COLUMN,
    PAGE,
    UNIT_LINE,
    in_paper_style,
    legend_above,
    look,
    plain_ticks,
)


@in_paper_style
def noise_scale_through_training(table: pd.DataFrame, batch_size: int) -> Figure:
    """B_simple of every layer (thin) and of all together at every measured step; a table of
    ``noise_scale``.
    """
    figure, axes = plt.subplots(figsize=(COLUMN + 0.6, 2.6), layout="constrained")
    steps = sorted(set(table["step"]))
    for i, (name, part) in enumerate(table.groupby("layer", sort=False)):
        places = part["step"].map(steps.index)
        if name == TOTAL:
            axes.plot(
                places,
                part["noise_scale"],
                "o-",
                color=look([TOTAL])[TOTAL][0],
                linewidth=1.4,
                label=TOTAL,
            )
        else:
            label = None if i else "each layer"
            axes.plot(
                places, part["noise_scale"], ".-", color="0.7", linewidth=0.6, zorder=1, label=label
            )
    axes.axhline(batch_size, label="batch size", **UNIT_LINE)
    axes.set(
        xlabel="step (updates, evenly spaced)",
        ylabel="noise scale $B_{simple}$ (examples)",
        yscale="log",
    )
    axes.set_xticks(range(len(steps)), [str(step) for step in steps])
    plain_ticks(axes.yaxis)
    legend_above(figure, axes)
    return figure


@in_paper_style
def ratio_by_layer(rows: pd.DataFrame, step: int, rate: float) -> Figure:
    """Estimator variance over minibatch variance (unit: example) for every layer at one step and
    rate.
    """
    shown = at_rate(rows[rows["step"] == step], rate)
    layers = list(dict.fromkeys(shown["layer"]))
    looks = look(list(dict.fromkeys(rows["estimator"])))
    tall = 0.17 * max(len(looks) / 8, 1)  # inches to a layer
    figure, axes = plt.subplots(
        figsize=(PAGE * 0.7, 1.1 + tall * len(layers)), layout="constrained"
    )
    for i, (name, (colour, marker)) in enumerate(looks.items()):
        part = shown[shown["estimator"] == name]
        apart = 0.6 * (
            (i + 0.5) / len(looks) - 0.5
        )  # equal values stay visible one below the other
        places = [layers.index(layer) + apart for layer in part["layer"]]
        axes.plot(
            part["ratio"],
            places,
            marker,
            color=colour,
            label=name,
            markersize=3.5,
            markeredgewidth=0,
        )
    axes.axvline(1, **UNIT_LINE)
    axes.set(xscale="log")
    figure.supxlabel(
        f"estimator variance / minibatch variance (example), rate {rate:g}, step {step}", fontsize=8
    )
    plain_ticks(axes.xaxis)
    axes.set(yticks=range(len(layers)), yticklabels=layers, ylim=(len(layers) - 0.4, -0.6))
    legend_above(figure, axes)
    return figure


@in_paper_style
def ratio_through_training(rows: pd.DataFrame, rate: float) -> Figure:
    """Median over layers of the ratio at every measured step, one panel per minibatch unit.

    ``rows`` come from ``compare.by_unit``.
    """
    shown = at_rate(rows, rate)
    steps = sorted(set(shown["step"]))
    looks = look(list(dict.fromkeys(rows["estimator"])))
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 2.8), sharey=True, layout="constrained")
    for axes, unit in zip(panels, ("example", "row"), strict=True):
        sns.lineplot(
            shown[shown["unit"] == unit].assign(place=lambda part: part["step"].map(steps.index)),
            x="place",
            y="ratio",
            hue="estimator",
            style="estimator",
            estimator="median",
            errorbar=None,
            palette={name: colour for name, (colour, _) in looks.items()},
            markers={name: marker for name, (_, marker) in looks.items()},
            dashes=False,
            linewidth=1,
            ax=axes,
        )
        axes.axhline(1, **UNIT_LINE)
        axes.set(
            title=f"minibatch unit: {unit}", xlabel="step (updates, evenly spaced)", yscale="log"
        )
        axes.set_xticks(range(len(steps)), [str(step) for step in steps])
        plain_ticks(axes.yaxis)
        axes.set_ylabel(f"variance / minibatch variance,\nmedian over layers, rate {rate:g}")
        axes.get_legend().remove()
    legend_above(figure, panels[0])
    return figure


@in_paper_style
def alpha_through_training(rows: pd.DataFrame) -> Figure:
    """α = ‖XᵀY‖² / (‖X‖²‖Y‖²) of every layer at every measured step."""
    once = rows.drop_duplicates(["layer", "step"])
    table = once.pivot_table(index="layer", columns="step", values="alpha", sort=False)
    figure, axes = plt.subplots(
        figsize=(COLUMN + 0.6, 1.0 + 0.17 * len(table)), layout="constrained"
    )
    sns.heatmap(
        table,
        annot=table.map(lambda a: f"{1e3 * a:.0f}" if a >= 0.01 else f"{1e3 * a:.2g}"),
        fmt="",
        annot_kws={"size": 6},
        cmap="cividis",
        norm=LogNorm(),
        cbar_kws={"label": "α = ‖G‖² / (‖X‖²‖Y‖²); the numbers are 1000 α"},
        ax=axes,
    )
    axes.set(xlabel="step (updates)", ylabel="")
    return figure


@in_paper_style
def closed_form_and_draws(draws: pd.DataFrame) -> Figure:
    """Variance against rate on one layer's pair: closed form as a line, repeated draws as points
    with ±2 stderr.
    """
    draws = draws.sort_values("rate", kind="stable")
    looks = look(list(dict.fromkeys(draws["estimator"])))
    across = min(4, len(looks))
    down = -(-len(looks) // across)
    figure, grid = plt.subplots(
        down,
        across,
        figsize=(PAGE, 0.6 + 1.5 * down),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, (name, (colour, _)) in zip(grid.flat, looks.items(), strict=False):
        part = draws[draws["estimator"] == name]
        axes.plot(part["rate"], part["variance"], color=colour, label="closed form")
        count = int(part["draws"].iloc[0])
        style_points = {"fmt": "o", "color": "black", "markersize": 3, "elinewidth": 0.8}
        bars = 2 * part["stderr"]
        axes.errorbar(
            part["rate"], part["measured"], bars, label=f"{count} draws ± 2 stderr", **style_points
        )
        axes.set(title=name, xscale="log", yscale="log")
        axes.set_xticks(
            sorted(set(draws["rate"])), [f"{r:g}" for r in sorted(set(draws["rate"]))], minor=False
        )
        axes.minorticks_off()
        plain_ticks(axes.yaxis)
    for axes in list(grid.flat)[len(looks) :]:
        axes.remove()
    figure.supxlabel("rate (rows kept / rows)", fontsize=8)
    figure.supylabel("variance, E‖Ĝ − G‖²", fontsize=8)
    legend_above(figure, grid.flat[0])
    return figure
