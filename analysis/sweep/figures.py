"""Pictures of training runs: validation loss and ratio through training, and final losses."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from sketchvar.analysis.noise.select import at_rate, choose_rate, list_rates
from sketchvar.analysis.picture import Facet, list_series, merge_series, picture
from sketchvar.analysis.picture.select import add_rate
from sketchvar.analysis.picture.series import clip_bars
from sketchvar.analysis.style import COLUMN, PALETTE, UNIT_LINE, mark_steps, plain_ticks
from sketchvar.analysis.sweep.pooled import LEVEL
from sketchvar.analysis.sweep.tuned import at_best_rates

RUNS = ("estimator", "rate", "step", "batch", "checkpointing", "takes_rate")
MANY = 20  # evaluations beyond which points have no marks


def by_rate(rows: pd.DataFrame, options: Mapping[str, Any]) -> list[Facet]:
    """A panel for every rate, greatest first, of the runs on the whole batch, without those that
    only repeat exact training under checkpointing; estimators that take none are in all. Each
    method is at its own best learning rate, where it has several.
    """
    rows = at_best_rates(rows)
    whole = rows[(rows["batch"] == rows["batch"].max()) & ~rows["checkpointing"].astype(bool)]
    rates = sorted(list_rates(whole), reverse=True) or [1.0]
    if (rate := options.get("rate")) is not None:
        rates = [choose_rate(whole, rate)]
    return [Facet(f"rate {r:g}", at_rate(whole, r), {"rate": r}) for r in rates]


@picture(*RUNS, "validation", width=COLUMN, split=by_rate)
def validation_curves(ax: Axes, rows: pd.DataFrame, rate: float | None = None) -> None:
    """Draw validation loss from the second evaluation on, at one rate or a panel for each: the mean
    over seeds in a shade of their range.
    """
    shown = rows[rows["step"] > rows["step"].min()]  # that of a fresh model would hide differences
    if not shown["validation"].notna().any():
        raise ValueError("no validation loss after the first evaluation is in these rows yet")
    for label, part, marks in list_series(shown):
        by = part.groupby("step")["validation"]
        how = marks | ({"marker": ""} if by.ngroups > MANY else {})
        ax.plot(by.mean().index, by.mean(), label=label, linewidth=1, **how)
        shade = {"color": marks["color"], "alpha": 0.12, "linewidth": 0}
        ax.fill_between(by.min().index, by.min(), by.max(), **shade)
    ax.set_ylabel("validation loss, mean and range over seeds")
    mark_steps(ax, list(shown["step"]))


@picture(*RUNS, "ratio", width=COLUMN, split=by_rate)
def total_ratio(ax: Axes, rows: pd.DataFrame, rate: float | None = None) -> None:
    """Draw the ratio of all layers together through training, at one rate or a panel for each, mean
    over seeds with its standard error: each seed has its own batch and weights.
    """
    shown = rows[(rows["estimator"] != "exact") & rows["ratio"].notna()]
    if shown.empty:
        raise ValueError("no ratio of variances was measured in these runs")
    by = shown.groupby(["label", "step"], sort=False)
    table = by.agg(
        estimator=("estimator", "first"), ratio=("ratio", "mean"), ratio_stderr=("ratio", "sem")
    ).reset_index()
    for label, part, marks in merge_series(list_series(table), "step", "ratio"):
        bars = clip_bars(part["ratio"], part["ratio_stderr"])
        how = marks | ({"marker": ""} if len(part) > MANY else {})
        ax.errorbar(part["step"], part["ratio"], bars, label=label, elinewidth=0.7, **how)
    ax.axhline(1, **UNIT_LINE)
    ax.set_yscale("log")
    ax.set_ylabel(
        "estimator variance / minibatch variance, all layers together, ± stderr over seeds"
    )
    mark_steps(ax, list(shown["step"]))
    plain_ticks(ax.yaxis)


def select_drawn(table: pd.DataFrame) -> pd.DataFrame:
    """The methods whose difference to exact training is known: estimators and smaller batches."""
    shown = table[table["validation_exact"].notna() & ~table["checkpointing"].astype(bool)]
    return shown[(shown["estimator"] != "exact") | (shown["batch"] < table["batch"].max())]


def name_methods(table: pd.DataFrame) -> list[str]:
    """What the methods of a summary are called."""
    labels = add_rate(table)["label"]
    return [
        f"exact, batch {batch}" if name == "exact" else label
        for name, batch, label in zip(table["estimator"], table["batch"], labels, strict=True)
    ]


def is_resolved(line: Mapping[Any, Any]) -> bool:
    """Whether a difference is resolved among all that are drawn; each is, where nothing says it."""
    return not line.get("validation_exact_holm", 0.0) >= LEVEL


FINAL = tuple(f"validation_exact{end}" for end in ("", "_low", "_high"))


@picture(
    "estimator", "rate", "batch", "checkpointing", *FINAL,
    width=COLUMN * 1.4, height=lambda table: 0.8 + 0.2 * len(select_drawn(table)),
)  # fmt: skip
def final_losses(ax: Axes, table: pd.DataFrame) -> None:
    """Draw final validation loss less that of exact training with its 95 % interval; filled where
    it is resolved among all intervals that are drawn (Holm, where the table says it).
    """
    shown = select_drawn(table)
    if shown.empty:
        raise ValueError("no method of this summary has a difference to exact training")
    names = name_methods(shown)
    for i, line in enumerate(shown.to_dict("records")):
        colour = "0.4" if line["estimator"] == "exact" else PALETTE[0]
        middle, low, high = (line[field] for field in FINAL)
        ax.plot([low, high], [i, i], color=colour)
        face = colour if is_resolved(line) else "white"
        ax.plot(middle, i, "o", color=colour, markerfacecolor=face)
    ax.axvline(0, **UNIT_LINE)
    marked = "; filled: resolved)" if "validation_exact_holm" in shown else ")"
    ax.set_xlabel("final validation loss − exact (95 %" + marked)
    ax.set(yticks=range(len(shown)), yticklabels=names, ylim=(len(shown) - 0.4, -0.6))
