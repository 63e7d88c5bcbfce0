"""Pictures of the table of layers: ratio and α, by layer and through training, and closed forms
beside draws.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from sketchvar.analysis.noise.select import at_rate, choose_rate, choose_step
from sketchvar.analysis.picture import (
    Facet,
    draw_blocks,
    draw_series,
    is_deep,
    list_series,
    merge_series,
    picture,
    shorten,
    take,
)
from sketchvar.analysis.picture.fold import count_lines, find_prefix, split
from sketchvar.analysis.picture.series import clip_bars
from sketchvar.analysis.style import PAGE, UNIT_LINE, Style, mark_steps, plain_ticks

NEEDED = ("step", "layer", "estimator", "rate", "takes_rate")
LINE = 0.17  # inches to a line of text


def find_height(rows: pd.DataFrame) -> float:
    """Inches of a picture with a line for each layer, or for each kind of a deep model."""
    if is_deep(rows):
        return 1.5 + 0.13 * count_lines(rows)
    return 1.1 + LINE * max(rows["estimator"].nunique() / 6, 1) * rows["layer"].nunique()


@picture(*NEEDED, "ratio", height=find_height)
def ratio_by_layer(
    ax: Axes, rows: pd.DataFrame, rate: float | None = None, step: int | None = None
) -> None:
    """Draw estimator variance over minibatch variance (unit: example) for every layer at one rate,
    0.1 or the least unless given, and one step, the last unless given.

    Bars are one standard error, where rows know it. Estimators of a layer share the batch: they
    differ by less than the bars say. Of more than 40 layers, a heat map of block × kind.
    """
    rate = choose_rate(rows, rate)
    shown = at_rate(choose_step(rows, step), rate)
    check_known(shown, "ratio")
    step = int(shown["step"].iloc[0])
    words = f"estimator variance / minibatch variance (example), rate {rate:g}, step {step}"
    if is_deep(shown):
        draw_blocks(ax, shown, "ratio", words)
        return
    layers, series = list(dict.fromkeys(shown["layer"])), list_series(shown)
    series = merge_series(series, "layer", "ratio")
    for i, (label, part, marks) in enumerate(series):
        apart = 0.6 * ((i + 0.5) / len(series) - 0.5)  # equal values stay visible
        bars = clip_bars(part["ratio"], take(part, "ratio_stderr"))
        places = [layers.index(layer) + apart for layer in part["layer"]]
        how = marks | {"linestyle": "", "markersize": 3.5, "elinewidth": 0.6, "label": label}
        ax.errorbar(part["ratio"], places, xerr=bars, **how)
    ax.axvline(1, **UNIT_LINE)
    ax.set(xscale="log", xlabel=words + name_bars(take(shown, "ratio_stderr")))
    plain_ticks(ax.xaxis)
    name_layers(ax, layers)


def name_layers(ax: Axes, layers: list[str]) -> None:
    """A line for each layer, the first above; what all names begin with is said once."""
    ax.set(yticks=range(len(layers)), yticklabels=shorten(layers), ylim=(len(layers) - 0.4, -0.6))
    if prefix := find_prefix(layers):
        ax.set_ylabel(f"{prefix}. …")


def check_known(rows: pd.DataFrame, column: str) -> None:
    """Raise ValueError where nothing is known to be drawn."""
    if not rows[column].notna().any():
        raise ValueError(
            f"no {column} is known: all are NaN, as where a batch has one example; measure with"
            " more examples in a batch"
        )


def name_bars(errors: pd.Series) -> str:
    """What a label says of bars, where any is known."""
    return ", ± stderr" if errors.notna().any() else ""


@picture(*NEEDED, "ratio", "variance", "minibatch_row", "minibatch_example")
def ratio_through_training(
    ax: Axes, rows: pd.DataFrame, rate: float | None = None, unit: str = "example"
) -> None:
    """Draw the median over layers of the ratio at every measured step, at one ``rate`` (0.1 or
    the smallest measured, unless given), against the minibatch variance of a ``unit``, example or
    row; a shade from the lower to the upper quartile of layers.

    Bars are the median of the layers' standard errors, where rows know them: layers see one batch,
    so that a median over them is hardly more certain than one of them.
    """
    rate = choose_rate(rows, rate)
    if unit not in ("example", "row"):
        raise ValueError(f"unit is 'example' or 'row', got {unit!r}")
    shown = at_rate(rows, rate)
    shown = shown.assign(ratio=shown["variance"] / shown[f"minibatch_{unit}"])
    error = take(shown, "ratio_stderr") if unit == "example" else float("nan")
    shown = shown.assign(ratio_stderr=error)
    check_known(shown, "ratio")
    by = shown.groupby(["label", "step"], sort=False)
    middle = by.agg(
        estimator=("estimator", "first"),
        ratio=("ratio", "median"),
        low=("ratio", lambda v: v.quantile(0.25)),
        high=("ratio", lambda v: v.quantile(0.75)),
        ratio_stderr=("ratio_stderr", "median"),
    ).reset_index()
    series = merge_series(list_series(middle), "step", "ratio")
    draw_series(ax, series, "step", "ratio")
    for _, part, marks in series:
        part = part.sort_values("step")
        shade = {"color": marks["color"], "alpha": 0.08, "linewidth": 0, "zorder": 0}
        ax.fill_between(part["step"], part["low"], part["high"], **shade)
    ax.axhline(1, **UNIT_LINE)
    ax.set_yscale("log")
    ax.set_ylabel(
        f"variance / minibatch variance ({unit}), rate {rate:g}, median over layers"
        + name_bars(shown["ratio_stderr"])
    )
    mark_steps(ax, list(middle["step"]))
    plain_ticks(ax.yaxis)


def name_once(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for every layer and step, or for every kind of a deep model: medians over blocks."""
    once = rows.drop_duplicates(["layer", "step"])
    once = once.assign(error=take(once, "alpha_stderr"))
    if not is_deep(once):
        return once
    once = once.assign(layer=[split(name)[1] for name in once["layer"]])
    return once.groupby(["layer", "step"], sort=False)[["alpha", "error"]].median().reset_index()


@picture(
    "step",
    "layer",
    "alpha",
    width=0.6 * PAGE,
    height=lambda rows: 1.1 + LINE * name_once(rows)["layer"].nunique(),
)
def alpha_through_training(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw α = ‖XᵀY‖² / (‖X‖²‖Y‖²) of every layer at every measured step, a thousand times, with
    one standard error where rows know it. Of more than 40 layers, medians over blocks by kind.
    """
    once = name_once(rows)
    check_known(once, "alpha")
    values: dict[str, Any] = {"index": "layer", "columns": "step", "sort": False, "dropna": False}
    table = 1e3 * once.pivot_table(values="alpha", **values)
    errors = 1e3 * once.pivot_table(values="error", **values).reindex_like(table)
    words = table.map(write_digits)
    known = bool(errors.notna().any(axis=None))
    if known:
        words = words.where(errors.isna(), words + " ± " + errors.map(write_digits))
    if len(table.columns) > (6 if known else 12):  # numbers would not fit
        words = table.map(lambda _: "")
    deep = "; medians over blocks" if is_deep(rows) else ""
    sns.heatmap(
        table,
        annot=words,
        fmt="",
        annot_kws={"size": 5 if known else 6},
        cmap="cividis",
        norm=LogNorm(),
        cbar_kws={"label": f"1000 ‖G‖² / (‖X‖²‖Y‖²){name_bars(once['error'])}{deep}"},
        ax=ax,
    )
    plain_ticks(ax.figure.axes[-1].yaxis)  # of the colours
    for text in ax.texts:  # black is for what stands on paper, and turns white on a dark page
        text.set_color("0.1" if text.get_color() == ".15" else text.get_color())
    ax.set(xlabel="step (updates, a column each)", ylabel="")
    ax.set_yticks([i + 0.5 for i in range(len(table))], shorten(list(table.index)), rotation=0)


def write_digits(value: float) -> str:
    """Two digits where it is small."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def by_estimator(rows: pd.DataFrame, options: Mapping[str, Any]) -> list[Facet]:
    """A panel for each estimator."""
    return [Facet(str(label), part) for label, part in rows.groupby("label", sort=False)]


@picture(
    "estimator", "rate", "variance", "measured", "stderr", "draws",
    width=1.8, height=1.7, split=by_estimator,
)  # fmt: skip
def closed_form_and_draws(ax: Axes, draws: pd.DataFrame) -> None:
    """Draw variance against rate on one layer's pair: the closed form as a line, repeated draws as
    points with ±2 standard errors; a panel for each estimator.
    """
    for _, part, marks in list_series(draws):
        part = part.sort_values("rate", kind="stable")
        ax.plot(part["rate"], part["variance"], color=marks["color"], label="closed form")
        points: Style = {"fmt": "o", "color": "black", "markersize": 3, "elinewidth": 0.8}
        label = f"{int(part['draws'].iloc[0])} draws ± 2 stderr"
        ax.errorbar(part["rate"], part["measured"], 2 * part["stderr"], label=label, **points)
    ax.set(xscale="log", yscale="log")
    rates = sorted(set(draws["rate"]))
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates], minor=False)
    ax.minorticks_off()
    plain_ticks(ax.yaxis)
    ax.set(xlabel="rate (rows kept / rows)", ylabel="variance, E‖Ĝ − G‖²")
