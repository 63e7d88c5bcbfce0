"""Pictures of a pair: variance against bytes, matrices side by side, errors of single draws."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from sketchvar.analysis.style import (
    COLUMN,
    PAGE,
    UNIT_LINE,
    fix_ticks,
    in_paper_style,
    label_choice,
    look,
    paper_style,
    plain_ticks,
)


def ratio_by_bytes(rows: pd.DataFrame, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw variance over minibatch variance against the bytes kept, a line for each estimator over
    its rates: rows of ``compare``. Bars are one standard error of the ratio; black dots are draws,
    with ±2 stderr, where there are any. Oracles are dotted, biased estimators dash-dotted.

    Raises ValueError for rows without the columns that it needs.
    """
    if missing := {"estimator", "share", "ratio", "minibatch_example"} - set(rows):
        raise ValueError(
            f"ratio_by_bytes needs the columns {', '.join(sorted(missing))}; give the rows of"
            " compare()"
        )
    with paper_style():
        axes = ax or plt.subplots(figsize=(PAGE * 0.75, 3.4), layout="constrained")[1]
        axes.axhline(1, **UNIT_LINE)
        for name, (colour, marker) in look(list(dict.fromkeys(rows["estimator"]))).items():
            part = rows[(rows["estimator"] == name) & (rows["ratio"] > 0)].sort_values("share")
            if part.empty:
                continue
            oracle, biased = bool(part["oracle"].iloc[0]), bool(part["biased"].iloc[0])
            style: dict[str, Any] = {
                "color": colour,
                "marker": marker,
                "linestyle": ":" if oracle else "-." if biased else "-",
                "linewidth": 1,
                "elinewidth": 0.6,
                "label": name + (" (oracle)" if oracle else " (biased)" if biased else ""),
            }
            bars = [part["ratio_stderr"].clip(upper=0.95 * part["ratio"]), part["ratio_stderr"]]
            axes.errorbar(part["share"], part["ratio"], bars, **style)
        draw_measured(axes, rows)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="bytes kept of X",
            ylabel="estimator variance / minibatch\nvariance (example), ± stderr",
            title="What each estimator adds, for the bytes it keeps" if title is None else title,
        )
        plain_ticks(axes.xaxis)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        plain_ticks(axes.yaxis)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        if ax is None:
            fix_ticks(axes.figure)  # type: ignore[arg-type]
    return axes


def draw_measured(axes: Axes, rows: pd.DataFrame) -> None:
    """Dots for what draws say."""
    seen = rows[rows.get("measured", pd.Series(np.nan, rows.index)).notna()]
    if len(seen):
        label = f"{int(seen['draws'].iloc[0])} draws ± 2 stderr"
        bars = 2 * seen["stderr"] / seen["minibatch_example"]
        style = {"fmt": "o", "color": "black", "markersize": 2.5, "elinewidth": 0.8, "zorder": 5}
        values = seen["measured"] / seen["minibatch_example"]
        axes.errorbar(seen["share"], values, bars, label=label, **style)


@in_paper_style
def matrices(
    shown: Mapping[str, Any], *, title: str = "", shared: bool = True, across: int = 4
) -> Figure:
    """Draw matrices (arrays or CPU tensors) beside each other, blue below zero and red above; with
    ``shared`` on one scale, else each on its own.
    """
    arrays = {name: np.asarray(each, dtype=float) for name, each in shown.items()}
    across = min(across, len(arrays))
    down = -(-len(arrays) // across)
    figure, grid = plt.subplots(
        down, across, figsize=(PAGE, 1.7 * down + 0.4), squeeze=False, layout="constrained"
    )
    most = max(np.abs(each).max() for each in arrays.values())
    for axes, (name, each) in zip(grid.flat, arrays.items(), strict=False):
        limit = (most if shared else np.abs(each).max()) or 1.0
        image = axes.imshow(
            each, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
        )
        axes.set(title=name, xticks=[], yticks=[])
        axes.set_xlabel(f"{each.shape[0]} × {each.shape[1]}", fontsize=7)
    for axes in list(grid.flat)[len(arrays) :]:
        axes.remove()
    if shared:
        figure.colorbar(image, ax=grid, shrink=0.8)
    figure.suptitle(title, fontsize=9)
    return figure


@in_paper_style
def error_distribution(errors: pd.DataFrame, *, title: str | None = None) -> Figure:
    """Draw how ‖Ĝ − G‖² / ‖G‖² of single draws is distributed, a cloud of dots for each
    estimator and rate: rows of ``draw_errors``. The black mark is the closed form, their mean.
    """
    parts = list(errors.groupby(["estimator", "rate"], sort=False))
    figure, axes = plt.subplots(
        figsize=(COLUMN + 1.6, 0.9 + 0.32 * len(parts)), layout="constrained"
    )
    for i, ((name, _), part) in enumerate(parts):
        colour, _ = look(list(dict.fromkeys(errors["estimator"])))[name]
        relative = part["error_sq"] / part["grad_sq"]
        cloud = np.random.default_rng(0).uniform(-0.28, 0.28, len(part))
        axes.plot(relative, i + cloud, ".", color=colour, markersize=2.5, alpha=0.5)
        closed = part["variance"].iloc[0] / part["grad_sq"].iloc[0]
        axes.plot([closed, closed], [i - 0.4, i + 0.4], color="black", linewidth=1.4)
    count = int(errors.groupby(["estimator", "rate"]).size().max())
    labels = [label_choice(name, rate) for (name, rate), _ in parts]
    axes.set(
        xscale="log",
        xlabel="‖Ĝ − G‖² / ‖G‖² of one draw; black: the closed form of its mean",
        yticks=range(len(parts)),
        yticklabels=labels,
        ylim=(len(parts) - 0.5, -0.5),
        title=f"Errors of {count} draws each" if title is None else title,
    )
    plain_ticks(axes.xaxis)
    return figure
