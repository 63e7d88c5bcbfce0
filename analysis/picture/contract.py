"""The contract of all public pictures: rows in, Axes out (a Figure where there are several panels),
in a style that holds within the call only.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, cleandoc, signature
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from sketchvar.analysis.picture.select import list_some, select
from sketchvar.analysis.style import COLUMN, PAGE, fix_ticks, legend_above, paper_style

Height = float | Callable[[pd.DataFrame], float]
SLIDE, SLIDE_HEIGHT, SLIDE_SCALE = 10.0, 5.6, 1.6  # inches, and fonts over those of paper
NARROW = 1.7  # inches that a panel needs
ROOM = 0.5  # inches for a legend; more make a figure taller
COMMON = """

Every picture takes ``ax`` (drawn in its own style, which is not changed), ``order``, ``estimators``
and ``layers`` (names or patterns) and ``labels`` (a name to what it is called), ``title``, and
``size``: "column", "page", "slide" or (width, height) in inches. Rows of several runs, or of what
else stands side by side, make a Figure of panels, anything else Axes. Raises ValueError, which says
what there is, for rows without what is to be drawn.
"""


class Facet(NamedTuple):
    """What one panel shows: rows, and options of the picture that are its own."""

    title: str
    rows: pd.DataFrame
    options: Mapping[str, Any] = {}


Split = Callable[[pd.DataFrame, Mapping[str, Any]], list[Facet]]


def by_run(rows: pd.DataFrame, options: Mapping[str, Any]) -> list[Facet]:
    """A panel for each run."""
    if "run" not in rows or rows["run"].nunique() < 2:
        return [Facet("", rows)]
    return [Facet(str(run), part) for run, part in rows.groupby("run", sort=False)]


def together(rows: pd.DataFrame, options: Mapping[str, Any]) -> list[Facet]:
    """One panel for all runs."""
    return [Facet("", rows)]


def picture(
    *needs: str,
    of: str = "estimator",
    width: float = 0.7 * PAGE,
    height: Height = 2.8,
    split: Split = by_run,
    across: int = 4,
) -> Callable[[Callable[..., None]], Callable[..., Any]]:
    """Make a public picture of a function that draws rows into Axes: ``draw(ax, rows, ...)``.

    ``needs`` are the columns that rows have to have, ``of`` the one that names what is drawn,
    ``split`` makes the panels, at most so many ``across``; ``width`` and ``height`` are inches of
    one.
    """

    def make(draw: Callable[..., None]) -> Callable[..., Any]:
        own = list(signature(draw).parameters.values())[1:]
        names = [one.name for one in own[1:]]

        @wraps(draw)
        def show(
            rows: pd.DataFrame,
            *args: Any,
            ax: Axes | None = None,
            order: Sequence[str] = (),
            layers: str | Sequence[str] | None = None,
            estimators: str | Sequence[str] | None = None,
            labels: Mapping[str, str] | None = None,
            title: str | None = None,
            size: str | tuple[float, float] | None = None,
            **options: Any,
        ) -> Axes | Figure:
            signature(draw).bind(ax, rows, *args, **options)  # raises the TypeError of a slip
            options |= dict(zip(names, args, strict=False))
            chosen = select(
                rows, needs, of, order=order, layers=layers, estimators=estimators, labels=labels
            )
            facets = split(chosen, options)

            def paint(axes: Axes, facet: Facet) -> None:
                draw(axes, facet.rows, **{**options, **facet.options})

            if ax is not None:
                return draw_into(ax, facets, paint, title)
            tall = height(facets[0].rows) if callable(height) else height
            wide = width if len(facets) == 1 else max(width, min(PAGE, 2.4 * len(facets)))
            shape = find_shape(size, (wide, tall), min(across, len(facets)), len(facets))
            return draw_alone(facets, paint, shape, title)

        show.__doc__ = cleandoc(draw.__doc__ or "") + COMMON
        common = [p for p in signature(show, follow_wrapped=False).parameters.values()]
        keywords = [p for p in common if p.kind is Parameter.KEYWORD_ONLY]
        show.__signature__ = signature(draw).replace(  # type: ignore[attr-defined]
            parameters=[*own, *keywords], return_annotation=Axes | Figure
        )
        return show

    return make


def draw_into(
    ax: Axes, facets: Sequence[Facet], paint: Callable[[Axes, Facet], None], title: str | None
) -> Axes:
    """Draw into somebody's Axes, in the style that they have."""
    if len(facets) > 1:
        raise ValueError(
            f"these rows make {len(facets)} panels ({list_some([f.title for f in facets])}); give"
            " ax= the rows of one, or leave ax out"
        )
    paint(ax, facets[0])
    if title is not None:
        ax.set_title(title)
    if ax.get_legend() is None and len(ax.get_legend_handles_labels()[1]) > 1:
        ax.legend()
    return ax


def draw_alone(
    facets: Sequence[Facet],
    paint: Callable[[Axes, Facet], None],
    shape: "Shape",
    title: str | None,
) -> Axes | Figure:
    """Draw into a figure of its own, a panel for each facet, with one legend above."""
    width, height, scale, across, _ = shape
    down = -(-len(facets) // across)
    same = len({tuple(dict.fromkeys(f.rows.get("layer", ()))) for f in facets}) == 1
    with paper_style(scale):
        figure, grid = plt.subplots(
            down,
            across,
            figsize=(width, height),
            layout="constrained",
            squeeze=False,
            sharex=True,
            sharey=same,
        )
        panels, over = list(grid.flat)[: len(facets)], list(grid.flat)[len(facets) :]
        try:
            for axes, facet in zip(panels, facets, strict=True):
                paint(axes, facet)
        except Exception:
            plt.close(figure)  # a notebook would show it, empty
            raise
        for axes in over:
            axes.remove()
        for axes in panels[len(panels) - across :][: len(over)]:  # what is below them is gone
            axes.tick_params(labelbottom=True)
        finish(figure, panels, [facet.title for facet in facets], title, shape)
    return panels[0] if len(panels) == 1 else figure


def finish(
    figure: Figure, panels: Sequence[Axes], titles: Sequence[str], title: str | None, shape: "Shape"
) -> None:
    """Add titles and one legend for all panels, and fix what depends on the style."""
    if len(panels) > 1:
        share_labels(figure, panels)
        for axes, text in zip(panels, titles, strict=True):
            axes.set_title(text)
    if not any(axes.get_legend() for axes in panels):
        legend_above(figure, panels)
    if title is not None and len(panels) == 1:
        panels[0].set_title(title)
    elif title is not None and figure.legends:  # which stands where a title would
        figure.legends[0].set_title(title, FontProperties(size=plt.rcParams["axes.titlesize"]))
    elif title is not None:
        figure.suptitle(title)
    for legend in [] if shape.fixed else figure.legends:
        tall = legend.get_window_extent().height / figure.dpi
        figure.set_figheight(shape.height + max(0.0, tall - ROOM))
    fix_ticks(figure, shape.scale)
    wrap_labels(figure)


def share_labels(figure: Figure, panels: Sequence[Axes]) -> None:
    """One label for all panels, where it is the same."""
    for which in ("x", "y"):
        texts = {getattr(axes, f"get_{which}label")() for axes in panels}
        if len(texts) == 1:
            for axes in panels:
                getattr(axes, f"set_{which}label")("")
            size = plt.rcParams["axes.labelsize"]
            getattr(figure, f"sup{which}label")(texts.pop(), fontsize=size)


def wrap_labels(figure: Figure) -> None:
    """Break labels where they are longer than their axes, or than the figure."""
    wide, tall = figure.bbox.width, figure.bbox.height
    found = [(text, wide) for text in [figure._supxlabel] if text]  # type: ignore[attr-defined]
    found += [(text, 0.65 * tall) for text in [figure._supylabel] if text]  # type: ignore[attr-defined]
    for axes in figure.axes:
        size = axes.get_window_extent()
        found += [(axes.xaxis.label, size.width), (axes.yaxis.label, size.height)]
    for text, room in found:
        box, words = text.get_window_extent(), text.get_text()
        length = max(box.width, box.height)
        if words and length > 1.05 * room:
            fits = int(len(words) * room / length)
            whole = re.sub(
                r"± (2 )?stderr|\d %|rate \d",
                lambda unit: unit[0].replace(" ", "\N{NO-BREAK SPACE}"),
                words,
            )
            text.set_text(fill(whole, max(12, fits)))


class Shape(NamedTuple):
    """Inches of a figure, what its fonts are over those of paper, how many panels fit, and whether
    its height was asked for.
    """

    width: float
    height: float
    scale: float
    across: int
    fixed: bool


def find_shape(
    size: str | tuple[float, float] | None, usual: tuple[float, float], across: int, panels: int
) -> Shape:
    """The shape of a figure of so many panels, of which one usually has this width and height.
    Raises ValueError for a size that there is not.
    """
    width, height = usual
    if size == "slide":
        return Shape(SLIDE, SLIDE_HEIGHT, SLIDE_SCALE, across, True)
    widths = {None: width, "column": COLUMN, "page": PAGE}
    if isinstance(size, tuple):
        width = size[0]
    elif size in widths:
        width = widths[size]
    else:
        raise ValueError(
            f"size is 'column', 'page', 'slide' or (width, height) in inches, got {size!r}"
        )
    across = min(across, max(1, int(width / NARROW)))
    down = -(-panels // across)
    fixed = isinstance(size, tuple)
    tall = size[1] if isinstance(size, tuple) else 0.6 + (height - 0.6) * down
    return Shape(width, tall, 1.0, across, fixed)
