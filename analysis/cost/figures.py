"""Figures of what noise costs: against its variance, by horizon, layer and step; and of forks."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sketchvar.analysis.style import (
    COLUMN,
    PAGE,
    UNIT_LINE,
    in_paper_style,
    label_choice,
    legend_above,
    look,
    plain_ticks,
)

PREDICTED = {  # what is predicted of the effective batch: its label, and how it is drawn
    "by_variance": ("1 / (1 + variance ratio)", "x"),
    "by_metric": ("1 / (1 + metric ratio)", "+"),
    "by_cost": ("1 / (1 + cost ratio)", "o"),
    "by_both": ("noise and progress joined", "D"),
}


@in_paper_style
def cost_and_variance(rows: pd.DataFrame) -> Figure:
    """Cost ratio against variance ratio, ± 2 standard errors, one point per estimator and rate, a
    panel for each of at most three horizons; the last step of ``cost.parquet``.

    On the dashed line noise costs what its variance says.
    """
    rows = last_step(rows)
    horizons = sorted(set(rows["horizon"]))
    shown = [horizons[0], *horizons[len(horizons) // 2 : -1][:1], horizons[-1]]
    shown = list(dict.fromkeys(shown))
    figure, grid = plt.subplots(
        1,
        len(shown),
        figsize=(max(COLUMN, PAGE * len(shown) / 3), 2.8),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    looks = look(labels(rows))
    for axes, horizon in zip(grid[0], shown, strict=True):
        for _, line in rows[rows["horizon"] == horizon].iterrows():
            name = label_choice(line["estimator"], line["rate"])
            bars(axes, line, "variance_ratio", "cost_ratio", name, looks[name])
        draw_equality(axes)
        axes.set(
            xscale="log",
            yscale="log",
            title=name_horizon(horizon),
            xlabel="variance / minibatch variance",
        )
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
    grid[0][0].set_ylabel("cost / cost of the minibatch's noise")
    legend_above(figure, grid[0][0])
    return figure


@in_paper_style
def cost_by_horizon(rows: pd.DataFrame) -> Figure | None:
    """Cost ratio over the number of steps, ± 2 standard errors, the last step of ``cost.parquet``;
    None where one horizon was measured.
    """
    rows = last_step(rows)
    finite = sorted(h for h in set(rows["horizon"]) if math.isfinite(h))
    if len(set(rows["horizon"])) < 2:
        return None
    far = 4 * finite[-1]  # where ∞ is drawn
    figure, axes = plt.subplots(figsize=(PAGE * 0.7, 3.0), layout="constrained")
    places = rows["horizon"].replace(math.inf, far)
    draw_lines(axes, rows.assign(place=places).sort_values("horizon", kind="stable"))
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="horizon (steps)",
        ylabel="cost / cost of the minibatch's noise",
    )
    plain_ticks(axes.yaxis)
    ends = [*finite, *([far] if math.inf in set(rows["horizon"]) else [])]
    axes.set_xticks(ends, [f"{h:g}" if h in finite else "∞" for h in ends], minor=False)
    axes.set_xticks([], minor=True)
    legend_above(figure, axes)
    return figure


@in_paper_style
def cost_through_training(rows: pd.DataFrame) -> Figure | None:
    """Cost ratio of one step at every measured step, ± 2 standard errors; None for a single one."""
    rows = rows[rows["horizon"] == 1]
    if len(set(rows["step"])) < 2:
        return None
    figure, axes = plt.subplots(figsize=(PAGE * 0.7, 3.0), layout="constrained")
    draw_lines(axes, rows.assign(place=rows["step"]))
    axes.set(
        yscale="log", xlabel="step (updates)", ylabel="cost / cost of the minibatch's noise, 1 step"
    )
    plain_ticks(axes.yaxis)
    legend_above(figure, axes)
    return figure


@in_paper_style
def cost_by_layer(rows: pd.DataFrame) -> Figure:
    """One-step cost ratio of every linear layer by itself, ± 2 standard errors, the last step of
    ``cost-layers.parquet``.
    """
    rows = last_step(rows)
    layers = list(dict.fromkeys(rows["layer"]))
    figure, axes = plt.subplots(figsize=(PAGE * 0.8, 1.1 + 0.2 * len(layers)), layout="constrained")
    looks = look(labels(rows))
    places = np.linspace(-0.3, 0.3, len(looks)) if len(looks) > 1 else [0.0]
    for apart, (label, (colour, marker)) in zip(places, looks.items(), strict=True):
        each = rows[[label_choice(*pair) == label for pair in zip(rows["estimator"], rows["rate"])]]  # noqa: B905
        axes.errorbar(
            each["cost_ratio"],
            [layers.index(layer) + apart for layer in each["layer"]],
            xerr=2 * each["cost_ratio_stderr"],
            fmt=marker,
            color=colour,
            label=label,
            markersize=3,
            elinewidth=0.6,
        )
    axes.axvline(1, **UNIT_LINE)
    axes.set(
        xscale="log",
        xlabel="cost / cost of the minibatch's noise, in the same weight, 1 step",
        yticks=range(len(layers)),
        yticklabels=layers,
        ylim=(len(layers) - 0.4, -0.6),
    )
    plain_ticks(axes.xaxis)
    legend_above(figure, axes)
    return figure


@in_paper_style
def coherence_of_noise(rows: pd.DataFrame) -> Figure:
    """How much of each noise's one-step cost is there because weights err together, ± 2 standard
    errors, the last step of ``coherence.parquet``.
    """
    rows = last_step(rows)
    names = [
        label_choice(name, rate) + (", one seed" if seeds == "one" else "")
        for name, rate, seeds in zip(rows["noise"], rows["rate"], rows["seeds"], strict=True)
    ]
    figure, axes = plt.subplots(figsize=(PAGE * 0.7, 0.9 + 0.2 * len(rows)), layout="constrained")
    axes.errorbar(
        rows["coherence"], range(len(rows)), xerr=2 * rows["coherence_stderr"], fmt="o", color="C0"
    )
    axes.axvline(0, **UNIT_LINE)
    axes.set(
        xlabel="coherence: 1 − cost where tensors err apart / cost",
        yticks=range(len(rows)),
        yticklabels=names,
        ylim=(len(rows) - 0.4, -0.6),
    )
    return figure


@in_paper_style
def effective_batches_and_predictions(rows: pd.DataFrame) -> Figure:
    """The effective batch that forks were read off at, with its interval, beside what was predicted
    of it; methods at their own best learning rate, the last step of ``effective.parquet``.
    """
    rows = last_step(rows)
    rows = rows[rows["tuned"].astype(bool) & (rows["estimator"] != "exact")].reset_index(drop=True)
    figure, axes = plt.subplots(figsize=(PAGE * 0.8, 1.2 + 0.28 * len(rows)), layout="constrained")
    axes.hlines(rows.index, rows["low"], rows["high"], color="black", linewidth=4, alpha=0.35)
    axes.plot(rows["effective"], rows.index, "k|", markersize=10, label="forks, 95 %")
    for i, (field, (label, marker)) in enumerate(PREDICTED.items()):
        if field in rows and rows[field].notna().any():
            axes.plot(rows[field], rows.index, marker, color=f"C{i}", label=label)
    axes.set(
        xscale="log",
        xlabel="effective batch / batch",
        yticks=rows.index,
        yticklabels=[
            label_choice(e, r) for e, r in zip(rows["estimator"], rows["rate"], strict=True)
        ],
        ylim=(len(rows) - 0.4, -0.6),
    )
    plain_ticks(axes.xaxis)
    legend_above(figure, axes)
    return figure


@in_paper_style
def cost_and_bytes(rows: pd.DataFrame) -> Figure:
    """What the bytes that are kept buy: variance ratio and one-step cost ratio against the share of
    X that is kept, ± 2 standard errors; the last step of ``cost.parquet``.
    """
    rows = last_step(rows)
    rows = rows[rows["horizon"] == rows["horizon"].min()]
    figure, grid = plt.subplots(1, 2, figsize=(PAGE, 2.8), sharex=True, layout="constrained")
    looks = look(list(dict.fromkeys(rows["estimator"])))
    for axes, field in zip(grid, ("variance_ratio", "cost_ratio"), strict=True):
        for name, each in rows.groupby("estimator", sort=False):
            each = each.sort_values("share")
            colour, marker = looks[str(name)]
            axes.errorbar(
                each["share"],
                each[field],
                yerr=2 * each[f"{field}_stderr"],
                fmt=f"{marker}-",
                color=colour,
                label=name,
                linewidth=1,
                elinewidth=0.7,
            )
        axes.axhline(1, **UNIT_LINE)
        axes.set(xscale="log", yscale="log", xlabel="bytes kept / bytes of X")
        axes.set_ylabel(field.replace("_", " "))
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
    legend_above(figure, grid[0])
    return figure


def bars(axes: Axes, line: pd.Series, x: str, y: str, label: str, how: tuple[object, str]) -> None:
    """A point with two standard errors on either side."""
    colour, marker = how
    axes.errorbar(
        line[x],
        line[y],
        xerr=2 * line[f"{x}_stderr"],
        yerr=2 * line[f"{y}_stderr"],
        fmt=marker,
        color=colour,
        label=label,
        elinewidth=0.7,
    )


def draw_equality(axes: Axes) -> None:
    """The line on which both are the same, over all that is shown."""
    axes.axline((1, 1), (2, 2), **UNIT_LINE)


def last_step(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last step that was measured; all, where they say none."""
    return rows[rows["step"] == rows["step"].max()] if "step" in rows else rows


def draw_lines(axes: Axes, rows: pd.DataFrame) -> None:
    """A line for every estimator and rate, the cost ratio ± 2 standard errors over ``place``."""
    looks = look(labels(rows))
    for label, each in by_choice(rows):
        colour, marker = looks[label]
        axes.errorbar(
            each["place"],
            each["cost_ratio"],
            yerr=2 * each["cost_ratio_stderr"],
            fmt=f"{marker}-",
            color=colour,
            label=label,
            linewidth=1,
            elinewidth=0.7,
        )
    axes.axhline(1, **UNIT_LINE)


def by_choice(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of every estimator and rate, with its label."""
    found = rows.groupby(["estimator", "rate"], sort=False)
    return [(label_choice(*each[["estimator", "rate"]].iloc[0]), each) for _, each in found]


def labels(rows: pd.DataFrame) -> list[str]:
    """Every estimator with its rate, once."""
    pairs = rows[["estimator", "rate"]].drop_duplicates()
    return [label_choice(name, rate) for name, rate in pairs.itertuples(index=False)]


def name_horizon(horizon: float) -> str:
    """A horizon, in words."""
    if math.isinf(horizon):
        return "for ever"
    return "one step" if horizon == 1 else f"{horizon:g} steps"
