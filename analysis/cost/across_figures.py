"""Figures of several runs of costs beside each other, as of models that differ in depth."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sketchvar.analysis.style import (
    PAGE,
    UNIT_LINE,
    in_paper_style,
    label_choice,
    legend_above,
    look,
    plain_ticks,
)


@in_paper_style
def coherence_across(rows: pd.DataFrame) -> Figure:
    """Coherence of every noise in every run (``of``), ± 2 standard errors: rows of several
    ``coherence.parquet``.
    """
    names = [
        label_choice(name, rate) + (", one seed" if seeds == "one" else "")
        for name, rate, seeds in zip(rows["noise"], rows["rate"], rows["seeds"], strict=True)
    ]
    figure, axes = plt.subplots(figsize=(PAGE * 0.7, 3.2), layout="constrained")
    draw_lines(axes, rows.assign(label=names), "coherence")
    axes.axhline(0, **UNIT_LINE)
    axes.set_ylabel("1 − cost where tensors err apart / cost")
    legend_above(figure, axes)
    return figure


@in_paper_style
def cost_across(rows: pd.DataFrame) -> Figure:
    """One-step cost ratio of every estimator in every run (``of``), ± 2 standard errors: rows of
    several ``cost.parquet``.
    """
    rows = rows[rows["horizon"] == 1]
    names = [label_choice(*pair) for pair in zip(rows["estimator"], rows["rate"], strict=True)]
    figure, axes = plt.subplots(figsize=(PAGE * 0.7, 3.2), layout="constrained")
    draw_lines(axes, rows.assign(label=names), "cost_ratio")
    axes.axhline(1, **UNIT_LINE)
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    axes.set_ylabel("cost / cost of the minibatch's noise, one step")
    legend_above(figure, axes)
    return figure


def draw_lines(axes: Axes, rows: pd.DataFrame, field: str) -> None:
    """``field`` of every ``label`` over the runs, a little apart."""
    runs, looks = list(dict.fromkeys(rows["of"])), look(list(dict.fromkeys(rows["label"])))
    for i, (label, (colour, marker)) in enumerate(looks.items()):
        each = rows[rows["label"] == label]
        apart = 0.3 * (i / max(len(looks) - 1, 1) - 0.5)
        axes.errorbar(
            [runs.index(of) + apart for of in each["of"]],
            each[field],
            yerr=2 * each[f"{field}_stderr"],
            fmt=f"{marker}-",
            color=colour,
            label=label,
            linewidth=0.8,
            elinewidth=0.7,
        )
    axes.set_xticks(range(len(runs)), runs)
