"""Figures of what noise costs: against its variance and bytes, by horizon, layer and step."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from sketchvar.analysis.noise.horizon import name_horizon
from sketchvar.analysis.noise.select import choose_step
from sketchvar.analysis.picture import (
    Facet,
    draw_blocks,
    draw_series,
    is_deep,
    list_series,
    merge_series,
    picture,
    shorten,
)
from sketchvar.analysis.picture.fold import count_lines, find_prefix
from sketchvar.analysis.picture.select import add_rate, list_some
from sketchvar.analysis.picture.series import clip_bars
from sketchvar.analysis.style import COLUMN, PAGE, UNIT_LINE, Style, mark_steps, plain_ticks

COST = ("estimator", "rate", "horizon", "cost_ratio", "cost_ratio_stderr")
VARIANCE = ("variance_ratio", "variance_ratio_stderr")
FIELDS = {
    "variance_ratio": "variance / minibatch variance",
    "cost_ratio": "cost / cost of the minibatch's noise",
}


def by_horizon(rows: pd.DataFrame, options: Mapping[str, Any]) -> list[Facet]:
    """A panel for each of at most three horizons: the first, one in the middle, the last."""
    horizons = sorted(set(rows["horizon"]))
    shown = [horizons[0], *horizons[len(horizons) // 2 : -1][:1], horizons[-1]]
    if (one := options.get("horizon")) is not None:
        shown = [one]
    parts = {h: at_horizon(rows, h) for h in dict.fromkeys(shown)}
    return [Facet(name_horizon(h), part, {"horizon": h}) for h, part in parts.items()]


def at_horizon(rows: pd.DataFrame, horizon: float) -> pd.DataFrame:
    """Select a horizon. Raises ValueError for one that was not measured."""
    horizons = sorted(set(rows["horizon"]))
    if horizon not in horizons:
        there = list_some([f"{h:g}" for h in horizons])
        raise ValueError(f"no rows at horizon {horizon:g}; measured were {there}")
    return rows[rows["horizon"] == horizon]


@picture(*COST, *VARIANCE, width=COLUMN, split=by_horizon)
def cost_and_variance(ax: Axes, rows: pd.DataFrame, horizon: float | None = None) -> None:
    """Draw cost ratio against variance ratio, ± 2 standard errors, one point per estimator and
    rate, at one horizon or a panel for each of at most three; the last step of ``cost.parquet``.

    On the dashed line noise costs what its variance says.
    """
    for label, part, marks in list_series(add_rate(choose_step(rows))):
        bars: Style = {"xerr": 2 * part[VARIANCE[1]], "yerr": 2 * part["cost_ratio_stderr"]}
        how = marks | {"linestyle": "", "elinewidth": 0.7, "label": label}
        ax.errorbar(part["variance_ratio"], part["cost_ratio"], **bars, **how)
    ax.axline((1, 1), (2, 2), **UNIT_LINE)
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel=FIELDS["variance_ratio"] + ", ± 2 stderr", ylabel=FIELDS["cost_ratio"])
    plain_ticks(ax.xaxis)
    plain_ticks(ax.yaxis)


@picture(*COST, height=3.0)
def cost_by_horizon(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw cost ratio over the number of steps, ± 2 standard errors, the last step of
    ``cost.parquet``.
    """
    rows = choose_step(rows)
    finite = sorted(h for h in set(rows["horizon"]) if math.isfinite(h))
    far = 4 * finite[-1]  # where ∞ is drawn
    draw_lines(ax, rows.assign(place=rows["horizon"].replace(math.inf, far)), "place")
    ends = [*finite, *([far] if math.inf in set(rows["horizon"]) else [])]
    ax.set(xscale="log", xlabel="horizon (steps)", ylabel=FIELDS["cost_ratio"] + ", ± 2 stderr")
    ax.set_xticks(ends, [f"{h:g}" if h in finite else "∞" for h in ends], minor=False)
    ax.set_xticks([], minor=True)


@picture(*COST, "step", height=3.0)
def cost_through_training(ax: Axes, rows: pd.DataFrame, horizon: float = 1) -> None:
    """Draw cost ratio over one step, or another horizon, at every measured step, ± 2 standard
    errors.
    """
    draw_lines(ax, at_horizon(rows, horizon), "step")
    ax.set_ylabel(f"{FIELDS['cost_ratio']}, {name_horizon(horizon)}, ± 2 stderr")
    mark_steps(ax, list(rows["step"]))


def draw_lines(ax: Axes, rows: pd.DataFrame, place: str) -> None:
    """A line for every estimator and rate, the cost ratio ± 2 standard errors over ``place``."""
    series = merge_series(list_series(add_rate(rows)), place, "cost_ratio")
    draw_series(ax, series, place, "cost_ratio", times=2)
    ax.axhline(1, **UNIT_LINE)
    ax.set_yscale("log")
    plain_ticks(ax.yaxis)


def find_height(rows: pd.DataFrame) -> float:
    """Inches of a picture with a line for each layer, or for each kind of a deep model."""
    if is_deep(rows):
        return 1.5 + 0.13 * count_lines(add_rate(rows))
    series = len(list_series(add_rate(choose_step(rows))))
    return 1.1 + 0.2 * max(series / 6, 1) * rows["layer"].nunique()


@picture(
    "estimator", "rate", "layer", "cost_ratio", "cost_ratio_stderr",
    width=0.8 * PAGE, height=find_height,
)  # fmt: skip
def cost_by_layer(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the one-step cost ratio of every linear layer by itself, ± 2 standard errors, the last
    step of ``cost-layers.parquet``; none where X itself is kept, as it is no larger, which costs
    nothing. Of more than 40 layers, a heat map of block × kind.
    """
    rows = add_rate(choose_step(rows))
    words = "cost / cost of the minibatch's noise, in the same weight, 1 step"
    if is_deep(rows):
        draw_blocks(ax, rows, "cost_ratio", words)
        return
    layers, series = list(dict.fromkeys(rows["layer"])), list_series(rows)
    for i, (label, part, marks) in enumerate(series):
        apart = 0.6 * ((i + 0.5) / len(series) - 0.5)
        places = [layers.index(layer) + apart for layer in part["layer"]]
        how = marks | {"linestyle": "", "markersize": 3, "elinewidth": 0.6, "label": label}
        bars = clip_bars(part["cost_ratio"], 2 * part["cost_ratio_stderr"])
        ax.errorbar(part["cost_ratio"], places, xerr=bars, **how)
    ax.axvline(1, **UNIT_LINE)
    ax.set(xscale="log", xlabel=words + ", ± 2 stderr", ylim=(len(layers) - 0.4, -0.6))
    ax.set_yticks(range(len(layers)), shorten(layers))
    if prefix := find_prefix(layers):
        ax.set_ylabel(f"{prefix}. …")
    plain_ticks(ax.xaxis)


def by_field(rows: pd.DataFrame, options: Mapping[str, Any]) -> list[Facet]:
    """A panel for variance and one for cost."""
    fields = [options["field"]] if options.get("field") else list(FIELDS)
    return [Facet(field.replace("_", " "), rows, {"field": field}) for field in fields]


@picture(*COST, *VARIANCE, "share", width=COLUMN, split=by_field)
def cost_and_bytes(ax: Axes, rows: pd.DataFrame, field: str | None = None) -> None:
    """Draw what the bytes that are kept buy: ``field``, variance_ratio or cost_ratio (over one
    step) or a panel for each, against the share of X that is kept, ± 2 standard errors; the last
    step of ``cost.parquet``.
    """
    field = field or "cost_ratio"
    if field not in FIELDS:
        raise ValueError(f"field is one of {', '.join(FIELDS)}, got {field!r}")
    rows = choose_step(rows)
    rows = rows[rows["horizon"] == rows["horizon"].min()]
    draw_series(ax, merge_series(list_series(rows), "share", field), "share", field, times=2)
    ax.axhline(1, **UNIT_LINE)
    ax.set(xscale="log", yscale="log", xlabel="bytes kept / bytes of X", ylabel="± 2 stderr")
    ax.set_ylabel(f"{FIELDS[field]}, ± 2 stderr")
    plain_ticks(ax.xaxis)
    plain_ticks(ax.yaxis)
