"""A figure as SVG inside the page: text stays text, the lines of each estimator are one group that
the page can hide, and points say their values.
"""

import io
import math
import re
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from sketchvar.analysis.style import find_figure

INK = re.compile(r"#(?:262626|404040|000000)\b")
POINT = re.compile(r'<use xlink:href="(#[^"]+)" x="([-\d.]+)" y="([-\d.]+)" style="([^"]*)"/>')


def write_svg(drawn: "Axes | Figure", number: int) -> str:
    """The figure as an element of HTML, which closes it; ``number`` keeps its names apart from
    those of others.
    """
    import matplotlib.pyplot as plt

    figure = find_figure(drawn)
    series = mark_series(figure)
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sketchvar"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    tall = figure.get_size_inches()[1] * 72
    text = file.getvalue()
    text = text[text.index("<svg") :].replace("\n", " ")
    for name, (label, axes) in series.items():
        text = name_group(text, name, label, axes, tall)
    plt.close(figure)
    text = re.sub(r"<metadata>.*?</metadata>| xmlns(:\w+)?=\"[^\"]*\"", "", text)
    text = re.sub(r' id="([^"]+)"', rf' id="f{number}-\1"', text)
    text = re.sub(r"(url\(|xlink:href=\")#", rf"\1#f{number}-", text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    return INK.sub("currentColor", text).replace("#cccccc", "var(--line)")


def mark_series(figure: Figure) -> dict[str, tuple[str, Axes]]:
    """Give what belongs to a label a name in the file: bars, lines, entries of the legend."""
    found: dict[str, tuple[str, Axes]] = {}

    def mark(artist: Any, label: str, axes: Axes) -> None:
        if not label.startswith("_"):
            name = f"s-{len(found)}"
            artist.set_gid(name)
            found[name] = label, axes

    for axes in figure.axes:
        held = set()
        for each in axes.containers:
            for artist in each.get_children():
                held.add(artist)
                mark(artist, str(each.get_label()), axes)
        for artist in [*axes.lines, *axes.collections]:
            if artist not in held and not isinstance(artist, Container):
                mark(artist, str(artist.get_label()), axes)
    legends = [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()))]
    for legend in legends:
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
            mark(text, text.get_text(), figure.axes[0])
            if handle is not None:
                mark(handle, text.get_text(), figure.axes[0])
    return found


def name_group(text: str, name: str, label: str, axes: Axes, tall: float) -> str:
    """Name a group by its estimators, and let its points say what they are."""
    start = text.find(f'<g id="{name}">')
    if start < 0:
        return text
    end = find_end(text, start)
    invert = axes.transData.inverted()
    scale = find_figure(axes).dpi / 72

    def say(found: re.Match[str]) -> str:
        place = invert.transform((float(found[2]) * scale, (tall - float(found[3])) * scale))
        values = [write_place(axis, v) for axis, v in zip((axes.xaxis, axes.yaxis), place)]  # noqa: B905
        words = escape(f"{label}: {', '.join(values)}")
        return found[0].replace("/>", f"><title>{words}</title></use>")

    of = escape("\n".join(name_estimators(label)), quote=True).replace("\n", "&#10;")
    body = POINT.sub(say, text[start:end])
    return text[:start] + body.replace(">", f' class="series" data-of="{of}">', 1) + text[end:]


def find_end(text: str, start: int) -> int:
    """Where a group ends that begins at ``start``."""
    depth = 0
    for found in re.finditer(r"<g[ >]|</g>", text[start:]):
        depth += 1 if found[0] != "</g>" else -1
        if depth == 0:
            return start + found.end()
    return len(text)


def name_estimators(label: str) -> list[str]:
    """The estimators that a label names, without rates and remarks."""
    return [
        re.sub(r" (?:\((?:oracle|biased|draws)\)|[\d.]+)", "", name) for name in label.split(", ")
    ]


def write_place(axis: Axis, value: float) -> str:
    """A value on an axis; the name that stands there, on one of names."""
    ticks = list(axis.get_majorticklocs())
    words = [label.get_text() for label in axis.get_majorticklabels()]
    fixed = isinstance(axis.get_major_locator(), FixedLocator)
    named = [not is_value(word, tick) for word, tick in zip(words, ticks, strict=False)]
    if fixed and sum(named) > len(ticks) / 2:
        apart = [abs(tick - value) for tick in ticks]
        return words[apart.index(min(apart))]
    return f"{value:.3g}"


def is_value(word: str, tick: float) -> bool:
    """Whether what stands at a tick is its value, as it is or in percent."""
    number, percent, _ = word.partition(" %")
    try:
        return math.isclose(float(number) / (100 if percent else 1), tick, rel_tol=1e-3)
    except ValueError:
        return False
