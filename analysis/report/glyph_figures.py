"""Small pictures of estimators: matrices with their signs, and the values of a grid with the chance
of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sketchvar.analysis.style import PALETTE, in_paper_style

WIDTH, CELL, TALL = 2.4, 0.09, 0.3  # inches: of a picture, an entry of a matrix, a grid
FEW = 16  # values of a grid whose chances can be told apart
BRIGHT = 0.95  # of the entries are paler than the largest


@dataclass(frozen=True)
class Matrix:
    """A matrix, and what its columns and rows are."""

    title: str
    values: np.ndarray
    across: str = ""
    down: str = ""


@dataclass(frozen=True)
class Grid:
    """Values, in order, that numbers between them are rounded to: at random, or to the nearest."""

    title: str
    values: np.ndarray
    ends: tuple[str, str] | None = None
    nearest: bool = False


Part = Matrix | Grid


@in_paper_style
def draw_parts(parts: Sequence[Part]) -> Figure:
    """Draw one below the other: matrices blue below zero and red above; grids with the chance of
    each value over the numbers that are rounded.
    """
    heights = [part.values.shape[0] * CELL if isinstance(part, Matrix) else TALL for part in parts]
    tall = sum(heights) + 0.3 * len(parts) + 0.12 * sum(p.title.count("\n") for p in parts) + 0.16
    figure, grid = plt.subplots(
        len(parts), 1, figsize=(WIDTH, tall), squeeze=False, height_ratios=heights,
        layout="constrained",
    )  # fmt: skip
    for axes, part in zip(grid.flat, parts, strict=True):
        axes.set_title(part.title, fontsize=7)
        draw_matrix(axes, part) if isinstance(part, Matrix) else draw_grid(axes, part)
    return figure


def draw_matrix(axes: Axes, part: Matrix) -> None:
    """Draw entries as cells, those that are 0 nearly white."""
    limit = 1.25 * np.quantile(np.abs(part.values[part.values != 0]), BRIGHT)
    axes.pcolormesh(
        part.values, cmap="RdBu_r", vmin=-limit, vmax=limit, edgecolors="0.85", linewidth=0.3
    )
    axes.invert_yaxis()
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.set_xlabel(part.across, fontsize=7)
    axes.set_ylabel(part.down, fontsize=7)


def draw_grid(axes: Axes, part: Grid) -> None:
    """Draw a line for the numbers, a mark at each value, and its chance above, where they are
    few.
    """
    values, colour = part.values, PALETTE[0]
    axes.vlines(values, 0, 0.35 if len(values) > FEW else 1, color=colour, linewidth=0.6)
    if len(values) <= FEW:
        for at, of in zip(*chances(values, part.nearest), strict=True):
            axes.fill_between(at, of, color=colour, alpha=0.25, linewidth=0)
            axes.plot(at, of, color=colour, linewidth=0.6)
    low, high = values[0], values[-1]
    axes.set(
        ylim=(0, 1.05), yticks=[], xlim=(low - 0.02 * (high - low), high + 0.02 * (high - low))
    )
    axes.grid(visible=False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    if part.ends:
        axes.set_xticks([low, high], part.ends)
    else:
        axes.set_xticks([low, 0, high])
    axes.tick_params(length=0, pad=1)


def chances(values: np.ndarray, nearest: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each value the numbers that may be rounded to it, and with which chance."""
    places, found = [], []
    for i, value in enumerate(values):
        low, high = values[max(i - 1, 0)], values[min(i + 1, len(values) - 1)]
        if nearest:
            low, high = (low + value) / 2, (value + high) / 2
            places.append(np.array([low, low, high, high]))
            found.append(np.array([0.0, 1.0, 1.0, 0.0]))
        else:
            places.append(np.array([low, value, high]))
            found.append(np.array([float(i == 0), 1.0, float(i == len(values) - 1)]))
    return places, found
