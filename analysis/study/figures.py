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
    Style,
    in_paper_style,
    legend_above,
    look,
    plain_ticks,
)


@in_paper_style
def noise_scale_through_training(table: pd.DataFrame, batch_size: int) -> Figure:
    """B_simple of every layer (thin) and of all together at every measured step; a table of
    ``noise_scale``. Bars are one standard error, where it is known. An arrow up from
    ``noise_scale_least`` stands for what is not known to be finite, as noise hides the gradient.
    """
    figure, axes = plt.subplots(figsize=(COLUMN + 0.6, 2.6), layout="constrained")
    steps = sorted(set(table["step"]))
    for i, (name, part) in enumerate(table.groupby("layer", sort=False)):
        places = part["step"].map(steps.index)
        least = take(part, "noise_scale_least")
        scale = part["noise_scale"].where(least.isna())
        if name == TOTAL:
            style: Style = {
                "color": look([TOTAL])[TOTAL][0],
                "linewidth": 1.4,
                "elinewidth": 0.9,
            }
            bars = clip_bars(scale, take(part, "noise_scale_stderr"))
            axes.errorbar(places, scale, bars, fmt="o-", label=TOTAL, **style)
        else:
            style = {"color": "0.7", "linewidth": 0.6, "zorder": 1}
            axes.plot(places, scale, ".-", label=None if i else "each layer", **style)
        arrows: Style = {
            "lolims": True,
            "fmt": "none",
            "color": style["color"],
            "capsize": 2,
        }
        apart = 0 if name == TOTAL else 0.4 * ((i + 1) / table["layer"].nunique() - 0.5)
        axes.errorbar(places + apart, least, 0.4 * least, elinewidth=0.9, **arrows)
    if take(table, "noise_scale_least").notna().any():
        axes.plot([], [], marker="$\u2191$", color="0.5", linestyle="", label="at least", ms=8)
    axes.axhline(batch_size, label="batch size", **UNIT_LINE)
    axes.set(
        xlabel="step (updates, evenly spaced)",
        ylabel="noise scale $B_{simple}$ (examples)" + name_bars(take(table, "noise_scale_stderr")),
        yscale="log",
    )
    axes.set_xticks(range(len(steps)), [str(step) for step in steps])
    plain_ticks(axes.yaxis)
    legend_above(figure, axes)
    return figure


@in_paper_style
def ratio_by_layer(rows: pd.DataFrame, step: int, rate: float) -> Figure:
    """Estimator variance over minibatch variance (unit: example) for every layer at one step and
    rate; bars are one standard error, where rows know it. Estimators of a layer share the batch:
    they differ by less than the bars say.
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
        bars = clip_bars(part["ratio"], take(part, "ratio_stderr"))
        style: Style = {
            "markersize": 3.5,
            "markeredgewidth": 0,
            "elinewidth": 0.6,
            "label": name,
        }
        axes.errorbar(part["ratio"], places, xerr=bars, fmt=marker, color=colour, **style)
    axes.axvline(1, **UNIT_LINE)
    axes.set(xscale="log")
    figure.supxlabel(
        f"estimator variance / minibatch variance (example), rate {rate:g}, step {step}"
        + name_bars(take(shown, "ratio_stderr")),
        fontsize=8,
    )
    plain_ticks(axes.xaxis)
    axes.set(yticks=range(len(layers)), yticklabels=layers, ylim=(len(layers) - 0.4, -0.6))
    legend_above(figure, axes)
    return figure


@in_paper_style
def ratio_through_training(rows: pd.DataFrame, rate: float) -> Figure:
    """Median over layers of the ratio at every measured step, one panel per minibatch unit. Bars
    are the median of the layers' standard errors, where rows know them: layers see one batch, so
    that a median over them is hardly more certain than one of them.

    ``rows`` come from ``compare.by_unit``.
    """
    shown = at_rate(rows, rate)
    shown = shown.assign(error=take(shown, "ratio_stderr"))
    steps = sorted(set(shown["step"]))
    looks = look(list(dict.fromkeys(rows["estimator"])))
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 2.8), sharey=True, layout="constrained")
    for axes, unit in zip(panels, ("example", "row"), strict=True):
        for name, (colour, marker) in looks.items():
            part = shown[(shown["unit"] == unit) & (shown["estimator"] == name)]
            table = part.groupby("step")[["ratio", "error"]].median()
            bars = clip_bars(table["ratio"], table["error"])
            style: Style = {
                "color": colour,
                "label": name,
                "linewidth": 1,
                "elinewidth": 0.7,
            }
            places = [steps.index(step) for step in table.index]
            axes.errorbar(places, table["ratio"], bars, fmt=f"{marker}-", **style)
        axes.axhline(1, **UNIT_LINE)
        axes.set(
            title=f"minibatch unit: {unit}" + name_bars(shown["error"][shown["unit"] == unit]),
            xlabel="step (updates, evenly spaced)",
            yscale="log",
        )
        axes.set_xticks(range(len(steps)), [str(step) for step in steps])
        plain_ticks(axes.yaxis)
        axes.set_ylabel(f"variance / minibatch variance,\nmedian over layers, rate {rate:g}")
    legend_above(figure, panels[0])
    return figure


def take(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column of errors, NaN where rows of before have none."""
    return rows[column].astype(float) if column in rows else pd.Series(float("nan"), rows.index)


def name_bars(errors: pd.Series) -> str:
    """What a label says of bars, where any is known."""
    return ", ± stderr" if errors.notna().any() else ""


def clip_bars(values: pd.Series, errors: pd.Series) -> list[pd.Series]:
    """Bars of one standard error down and up, on a logarithmic axis down to a twentieth."""
    return [errors.clip(upper=0.95 * values.abs()), errors]


@in_paper_style
def alpha_through_training(rows: pd.DataFrame) -> Figure:
    """α = ‖XᵀY‖² / (‖X‖²‖Y‖²) of every layer at every measured step, with one standard error where
    rows know it.
    """
    once = rows.drop_duplicates(["layer", "step"])
    once = once.assign(error=take(once, "alpha_stderr"))
    values: Style = {"index": "layer", "columns": "step", "sort": False, "dropna": False}
    table = once.pivot_table(values="alpha", **values)
    errors = once.pivot_table(values="error", **values).reindex_like(table)
    words = table.map(write_alpha)
    known = bool(errors.notna().any(axis=None))
    if known:
        words = words.where(errors.isna(), words + " ± " + errors.map(write_alpha))
    width = max(COLUMN + 0.6, 1.6 + 0.55 * len(table.columns)) if known else COLUMN + 0.6
    figure, axes = plt.subplots(figsize=(width, 1.0 + 0.17 * len(table)), layout="constrained")
    sns.heatmap(
        table,
        annot=words,
        fmt="",
        annot_kws={"size": 5 if known else 6},
        cmap="cividis",
        norm=LogNorm(),
        cbar_kws={
            "label": "α = ‖G‖² / (‖X‖²‖Y‖²); the numbers are 1000 α" + name_bars(once["error"])
        },
        ax=axes,
    )
    axes.set(xlabel="step (updates)", ylabel="")
    return figure


def write_alpha(alpha: float) -> str:
    """A thousand times α, two digits where it is small."""
    return f"{1e3 * alpha:.0f}" if alpha >= 0.01 else f"{1e3 * alpha:.2g}"


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
