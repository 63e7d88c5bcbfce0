"""Pictures of a pair: variance against bytes, matrices side by side, errors of single draws."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from sketchvar.analysis.picture import picture, take
from sketchvar.analysis.picture.series import clip_bars
from sketchvar.analysis.style import (
    COLUMN,
    PAGE,
    UNIT_LINE,
    Style,
    find_look,
    in_paper_style,
    label_choice,
    plain_ticks,
)


@picture("estimator", "share", "ratio", "minibatch_example", width=0.75 * PAGE, height=3.4)
def ratio_by_bytes(ax: Axes, rows: pd.DataFrame, legend: bool = True) -> None:
    """Draw variance over minibatch variance against the bytes kept, a line for each estimator over
    its rates: rows of ``compare``, with a ``legend`` beside them.

    Bars are one standard error of the ratio; black dots are draws, with ±2 stderr, where there are
    any. Oracles are dotted, biased estimators dash-dotted.
    """
    ax.axhline(1, **UNIT_LINE)
    for name, part in rows[rows["ratio"] > 0].groupby("estimator", sort=False):
        part = part.sort_values("share")
        colour, marker = find_look(str(name))
        flags = [take(part, flag).fillna(0).any() for flag in ("oracle", "biased")]
        style: Style = {"color": colour, "marker": marker, "linewidth": 1, "elinewidth": 0.6}
        style |= {"label": part["label"].iloc[0]}
        style |= {"linestyle": ":" if flags[0] else "-." if flags[1] else "-"}
        bars = clip_bars(part["ratio"], take(part, "ratio_stderr"))
        ax.errorbar(part["share"], part["ratio"], bars, **style)
    draw_measured(ax, rows)
    ax.set(xscale="log", yscale="log", xlabel="bytes kept of X")
    ax.set_ylabel("variance / minibatch variance (example)")
    plain_ticks(ax.xaxis)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    plain_ticks(ax.yaxis)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False).set_visible(legend)


def draw_measured(ax: Axes, rows: pd.DataFrame) -> None:
    """Dots for what draws say."""
    seen = rows[take(rows, "measured").notna()]
    if len(seen):
        style: Style = {"fmt": "o", "color": "black", "markersize": 2.5, "elinewidth": 0.8}
        style |= {"zorder": 5, "label": f"{int(seen['draws'].iloc[0])} draws ± 2 stderr"}
        values, bars = seen["measured"], 2 * seen["stderr"]
        scale = seen["minibatch_example"]
        ax.errorbar(seen["share"], values / scale, bars / scale, **style)


@in_paper_style
def matrices(
    shown: Mapping[str, Any], *, title: str = "", shared: bool = True, across: int = 4
) -> Figure:
    """Draw matrices (name -> array or CPU tensor, n × p) side by side, at most ``across`` in a row
    under one ``title``, blue below zero and red above; with ``shared`` on one scale, else each on
    its own. ``shown`` has them.

    Raises ValueError for no matrix.
    """
    if not shown:
        raise ValueError("matrices needs at least one, as in {'G': x.T @ y}; got none")
    arrays = {name: np.asarray(each, dtype=float) for name, each in shown.items()}
    across = min(across, len(arrays))
    down = -(-len(arrays) // across)
    figure, grid = plt.subplots(
        down, across, figsize=(PAGE, 1.7 * down + 0.4), squeeze=False, layout="constrained"
    )
    most = max(np.abs(each).max() for each in arrays.values())
    for axes, (name, each) in zip(grid.flat, arrays.items(), strict=False):
        limit = (most if shared else np.abs(each).max()) or 1.0
        style: Style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "aspect": "auto"}
        image = axes.imshow(each, interpolation="nearest", **style)
        axes.set(title=name, xticks=[], yticks=[])
        axes.set_xlabel(f"{each.shape[0]} × {each.shape[1]}", fontsize=7)
    for axes in list(grid.flat)[len(arrays) :]:
        axes.remove()
    if shared:
        figure.colorbar(image, ax=figure.axes, shrink=0.8)
    figure.suptitle(title, fontsize=9)
    return figure


def find_height(rows: pd.DataFrame) -> float:
    """Inches of a picture with a line for each estimator and rate."""
    return 0.9 + 0.32 * len(rows.drop_duplicates(["estimator", "rate"]))


@picture(
    "estimator", "rate", "error_sq", "variance", "grad_sq", width=COLUMN + 1.6, height=find_height
)
def error_distribution(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw how ‖Ĝ − G‖² / ‖G‖² of single draws is distributed, a cloud of dots for each estimator
    and rate: rows of ``draw_errors``. The black mark is the closed form, their mean.
    """
    parts = list(rows.groupby(["estimator", "rate"], sort=False))
    for i, ((name, _), part) in enumerate(parts):
        colour, _ = find_look(str(name))
        cloud = i + np.random.default_rng(0).uniform(-0.28, 0.28, len(part))
        dots: Style = {"color": colour, "markersize": 2.5, "alpha": 0.5}
        ax.plot(part["error_sq"] / part["grad_sq"], cloud, ".", **dots)
        closed = part["variance"].iloc[0] / part["grad_sq"].iloc[0]
        ax.plot([closed, closed], [i - 0.4, i + 0.4], color="black", linewidth=1.4)
    labels = [label_choice(part["label"].iloc[0], part["rate"].iloc[0]) for _, part in parts]
    ax.set(xscale="log", xlabel="‖Ĝ − G‖² / ‖G‖² of one draw; black: the closed form of its mean")
    ax.set(yticks=range(len(parts)), yticklabels=labels, ylim=(len(parts) - 0.5, -0.5))
    plain_ticks(ax.xaxis)
