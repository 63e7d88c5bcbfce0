"""The style that all pictures share: a picture takes rows and returns a matplotlib Figure, in this
style and without changing that of anything else.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

P = ParamSpec("P")
F = TypeVar("F", Figure, Figure | None)
Style = dict[str, Any]  # options of a picture's marks
COLUMN, PAGE = 3.4, 7.0  # inches: one column and both columns of a paper
STYLE = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.markersize": 4,
    "grid.linewidth": 0.5,
    "pdf.fonttype": 42,
}
UNIT_LINE: dict[str, Any] = {
    "color": "black",
    "linewidth": 0.8,
    "linestyle": "--",
    "zorder": 1,
}  # ratio 1
PALETTE = sns.color_palette("colorblind", 10)
MARKERS = ["o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h", "*", "d"]  # 13: all of 130 differ


@contextmanager
def paper_style() -> Iterator[None]:
    """Use fonts and grid for a paper, and seaborn's colour-blind palette, within the block only."""
    with mpl.rc_context():
        sns.set_theme("paper", "whitegrid", "colorblind", color_codes=False, rc=STYLE)
        yield


def in_paper_style(picture: Callable[P, F]) -> Callable[P, F]:
    """Draw a picture in the paper's style, which is over when the picture is returned."""

    @wraps(picture)
    def draw(*args: P.args, **options: P.kwargs) -> F:
        with paper_style():
            figure = picture(*args, **options)
            if figure is not None:
                fix_ticks(figure)
            return figure

    return draw


def fix_ticks(figure: Figure) -> None:
    """Fix the style of ticks, which would else take that of the moment when they are drawn."""
    for axes in figure.axes:
        axes.tick_params(labelsize=STYLE["xtick.labelsize"])  # their number depends on it
    figure.draw_without_rendering()


def look(names: list[str]) -> dict[str, tuple[object, str]]:
    """Give every estimator a colour and a marker, the same in all figures of a run."""
    colours = [PALETTE[i] for i in (0, 1, 2, 3, 4, 9, 7, 5, 8, 6)]  # the two palest come last
    return {name: (colours[i % 10], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}


def label_choice(estimator: str, rate: float) -> str:
    """Label an estimator with its rate, where it takes one."""
    return f"{estimator} {rate:g}" if rate < 1 else estimator


def plain_ticks(axis: Axis) -> None:
    """1, 2, 5, 10, ... on a logarithmic axis, written out; only powers of ten where more would not
    fit side by side.
    """
    low, high = axis.get_view_interval()
    crowded = isinstance(axis, XAxis) and high > 1000 * low
    axis.set_major_locator(LogLocator(subs=(1,) if crowded else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_above(figure: Figure, axes: Axes) -> None:
    """One legend for the whole figure, above it, so that it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    for columns in range(min(len(labels), 4), 0, -1):  # as many as fit side by side
        legend = figure.legend(
            handles, labels, loc="outside upper center", ncols=columns, frameon=False
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


def save(figure: Figure, path: Path) -> list[Path]:
    """Write PNG (200 dpi) and PDF beside each other; ``path`` has no suffix."""
    files = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "pdf")]
    with paper_style():
        for file in files:
            figure.savefig(file, dpi=200)
    plt.close(figure)
    return files
