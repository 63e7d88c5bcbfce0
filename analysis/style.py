"""The style that all pictures share: fonts, colours, markers, ticks, legends, files; without
changing that of anything else.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from zlib import crc32

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
STYLE: dict[str, Any] = {
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
    "svg.fonttype": "none",
}
UNIT_LINE: dict[str, Any] = {
    "color": "black",
    "linewidth": 0.8,
    "linestyle": "--",
    "zorder": 1,
}  # ratio 1
PALETTE = sns.color_palette("colorblind", 10)
MARKERS = ["o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h", "*", "d"]  # 13: all of 130 differ


KNOWN = (  # their places in colours and markers; those that are shown together most come first
    "gaussian", "countsketch", "uniform-rows", "norm-rows", "rounding:2", "optimal-rows",
    "centered(countsketch)", "rademacher", "srht", "rounding:4", "sparse-sign", "countsketch-iid",
    "srht-iid", "dct", "dct-iid", "haar", "uniform-rows-iid", "norm-rows-iid", "bernoulli-rows",
    "priority-rows", "winner-take-all-rows", "winner-take-all-rows-iid", "scored-rows",
    "scored-rows-iid", "optimal-rows-iid", "top-rows", "feature-gaussian", "feature-rademacher",
    "feature-columns", "feature-haar", "norm-columns", "principal-features", "sampled-entries",
    "largest-entries", "hot-columns", "low-rank", "generators", "subtoken-directions",
    "nearest-rounding", "rounding:1", "rounding:8", "row-bits:2", "rounding-rotated:2", "nvfp4",
    "nvfp4-nearest", "mxfp4", "nvfp4-both", "fp8", "uniform-rows+rounding:4",
    "countsketch+rounding:4", "feature-gaussian+rounding:2", "mxfp4-both", "fp8-both",
)  # fmt: skip
COLOURS = tuple(PALETTE[i] for i in (0, 1, 2, 3, 4, 9, 7, 5, 8, 6))  # the two palest come last
FILLS = ("full", "none", "left", "right", "bottom", "top")  # by rate
DASHES = ("-", "--", ":", "-.")


@contextmanager
def paper_style(scale: float = 1.0) -> Iterator[None]:
    """Use fonts and grid for a paper, ``scale`` times as large, and seaborn's colour-blind palette,
    within the block only.
    """
    sizes = {n: v * scale if "size" in n or "width" in n else v for n, v in STYLE.items()}
    with mpl.rc_context():
        sns.set_theme(
            "paper", "whitegrid", "colorblind", font_scale=scale, color_codes=False, rc=sizes
        )
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


def fix_ticks(figure: Figure, scale: float = 1.0) -> None:
    """Fix the style of ticks, which would else take that of the moment when they are drawn."""
    for axes in figure.axes:
        axes.tick_params(labelsize=STYLE["xtick.labelsize"] * scale)  # their number depends on it
    figure.draw_without_rendering()


GREY = {  # what is no estimator
    "exact": ("0.25", "o"),
    "minibatch": ("0", "o"),
    "minibatch, linear weights": ("0.5", "s"),
}


def look(names: Sequence[str]) -> dict[str, tuple[object, str]]:
    """Give every estimator its colour and marker, the same in all figures."""
    return {name: find_look(name) for name in names}


def find_look(name: str) -> tuple[object, str]:
    """The colour and marker of one estimator. What is not ``KNOWN`` takes one of the other pairs,
    by its letters.
    """
    if name in GREY:
        return GREY[name]
    pairs, first = len(COLOURS) * len(MARKERS), len(KNOWN)
    at = KNOWN.index(name) if name in KNOWN else first + crc32(name.encode()) % (pairs - first)
    return COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]


def label_choice(estimator: str, rate: float) -> str:
    """Label an estimator with its rate, where it takes one."""
    return f"{estimator} {rate:g}" if rate < 1 else estimator


def plain_ticks(axis: Axis) -> None:
    """1, 2, 5, 10, ... on a logarithmic axis, written out; only powers of ten where more would not
    fit side by side.
    """
    low, high = axis.get_view_interval()
    spec, figure = axis.axes.get_subplotspec(), axis.axes.figure
    inches = figure.bbox.width / figure.dpi
    room = inches / spec.get_gridspec().ncols if spec else inches  # a decade takes an inch
    crowded = high > 10 ** (min(room, 3) if isinstance(axis, XAxis) else 4) * low
    axis.set_major_locator(LogLocator(subs=(1,) if crowded else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def mark_steps(axes: Axes, steps: Sequence[int]) -> None:
    """A step axis to scale, with ticks at the measured steps where they do not crowd."""
    axes.set_xlabel("step (updates)")
    span = max(steps) - min(steps)
    shown: list[int] = []
    for step in sorted(set(steps)):
        if not shown or step - shown[-1] >= 0.08 * span:
            shown.append(step)
    axes.set_xticks(shown, [str(step) for step in shown])


def legend_above(figure: Figure, axes: Axes | Sequence[Axes]) -> None:
    """One legend for the whole figure, above it, so that it hides no data; of all these axes."""
    found: dict[str, Any] = {}
    for each in [axes] if isinstance(axes, Axes) else axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    for columns in range(min(len(found), 4), 0, -1):  # as many as fit side by side
        legend = figure.legend(
            list(found.values()),
            list(found),
            loc="outside upper center",
            ncols=columns,
            frameon=False,
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


def save(
    picture: Figure | Axes, path: Path | str, kinds: Sequence[str] = ("png", "pdf")
) -> list[Path]:
    """Write a picture in each of ``kinds``, PNG (200 dpi), PDF, SVG or what else matplotlib writes,
    beside each other; ``path`` has no suffix. The figure is closed. Returns the files.
    """
    figure, path = find_figure(picture), Path(path)
    files = [path.with_name(f"{path.name}.{kind}") for kind in kinds]
    with paper_style():
        for file in files:
            figure.savefig(file, dpi=200)
    plt.close(figure)
    return files


def find_figure(picture: Figure | Axes) -> Figure:
    """The figure that a picture is, or is in."""
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure
