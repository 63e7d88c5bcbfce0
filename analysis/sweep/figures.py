"""Pictures of training runs: rows in, Figure out."""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sketchvar.analysis.noise.select import at_rate, list_rates
from sketchvar.analysis.style import (
    COLUMN,
    PAGE,
    PALETTE,
    UNIT_LINE,
    Style,
    in_paper_style,
    label_choice,
    legend_above,
    look,
    plain_ticks,
)
from sketchvar.analysis.sweep.pooled import LEVEL


def select_whole_batch(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the runs on the whole batch, without those that only repeat exact training under
    checkpointing.
    """
    return rows[(rows["batch"] == rows["batch"].max()) & ~rows["checkpointing"]]


class Panel(NamedTuple):
    """One rate of a figure, with the rows that belong there."""

    axes: Any
    rate: float
    rows: pd.DataFrame


def panel_by_rate(shown: pd.DataFrame) -> tuple[Figure, list[Panel]]:
    """Make a panel for every rate, greatest first; estimators that take none are in all of them."""
    rates = sorted(list_rates(shown), reverse=True) or [1.0]
    figure, grid = plt.subplots(
        1, len(rates), figsize=(PAGE, 2.8), sharey=True, squeeze=False, layout="constrained"
    )
    panels = zip(grid[0], rates, strict=True)
    return figure, [Panel(axes, rate, at_rate(shown, rate)) for axes, rate in panels]


@in_paper_style
def validation_curves(rows: pd.DataFrame) -> Figure:
    """Validation loss from the second evaluation on, one panel per rate, mean and range over
    seeds.
    """
    shown = select_whole_batch(rows)
    shown = shown[
        shown["step"] > shown["step"].min()
    ]  # the loss of a fresh model would hide all differences
    looks = look(list(dict.fromkeys(shown["estimator"])))
    figure, panels = panel_by_rate(shown)
    for axes, rate, part in panels:
        sns.lineplot(
            part,
            x="step",
            y="validation",
            hue="estimator",
            style="estimator",
            estimator="mean",
            errorbar=("pi", 100),
            err_kws={"alpha": 0.15, "linewidth": 0},
            palette={name: colour for name, (colour, _) in looks.items()},
            markers={name: marker for name, (_, marker) in looks.items()},
            dashes=False,
            linewidth=1,
            ax=axes,
        )
        axes.set(
            title=f"rate {rate:g}",
            xlabel="step (updates)",
            ylabel="validation loss, mean and range over seeds",
        )
        axes.get_legend().remove()
    legend_above(figure, panels[0].axes)
    return figure


@in_paper_style
def total_ratio(rows: pd.DataFrame) -> Figure | None:
    """Total ratio through training, one panel per rate, mean over seeds with its standard error (of
    seeds: each has its own batch and weights).
    """
    shown = select_whole_batch(rows)
    shown = shown[(shown["estimator"] != "exact") & shown["ratio"].notna()]
    if shown.empty:
        return None
    looks = look(list(dict.fromkeys(rows["estimator"])))
    figure, panels = panel_by_rate(shown)
    for axes, rate, part in panels:
        for name, runs in part.groupby("estimator", sort=False):
            colour, marker = looks[str(name)]
            steps = runs.groupby("step")["ratio"]
            style: Style = {
                "color": colour,
                "linewidth": 1,
                "elinewidth": 0.7,
                "label": str(name),
            }
            axes.errorbar(steps.mean().index, steps.mean(), steps.sem(), fmt=f"{marker}-", **style)
        axes.axhline(1, **UNIT_LINE)
        axes.set(title=f"rate {rate:g}", yscale="log", xlabel="step (updates)")
        plain_ticks(axes.yaxis)
    panels[0].axes.set_ylabel(
        "estimator variance / minibatch variance,\nall layers together, mean ± stderr over seeds"
    )
    legend_above(figure, panels[0].axes)
    return figure


@in_paper_style
def final_losses(table: pd.DataFrame) -> Figure:
    """Final validation loss less that of exact training with its 95 % interval; filled where it is
    resolved among all intervals that are drawn (Holm, where the table says it).
    """
    shown = table[table["validation_exact"].notna() & ~table["checkpointing"]]
    shown = shown[(shown["estimator"] != "exact") | (shown["batch"] < table["batch"].max())]
    names = [
        f"exact, batch {b}" if e == "exact" else label_choice(e, r)
        for e, r, b in zip(shown["estimator"], shown["rate"], shown["batch"], strict=True)
    ]
    figure, axes = plt.subplots(
        figsize=(COLUMN * 1.4, 0.8 + 0.2 * len(shown)), layout="constrained"
    )
    colours = ["tab:gray" if e == "exact" else PALETTE[0] for e in shown["estimator"]]
    for i, (_, line) in enumerate(shown.iterrows()):
        axes.plot(
            [line["validation_exact_low"], line["validation_exact_high"]], [i, i], color=colours[i]
        )
        resolved = not line.get("validation_exact_holm", 0.0) >= LEVEL
        face = colours[i] if resolved else "white"
        axes.plot(line["validation_exact"], i, "o", color=colours[i], markerfacecolor=face)
    axes.axvline(0, color="black", linewidth=0.8, linestyle="--")
    axes.set(
        yticks=range(len(shown)),
        yticklabels=names,
        xlabel="final validation loss − exact (95 %"
        + ("; filled: resolved)" if "validation_exact_holm" in shown else ")"),
    )
    axes.invert_yaxis()
    return figure
