"""The picture of the gradient noise scale through training."""

import pandas as pd
from matplotlib.axes import Axes

from sketchvar.analysis.noise.scale import TOTAL
from sketchvar.analysis.picture import picture, shorten, take
from sketchvar.analysis.picture.series import clip_bars
from sketchvar.analysis.style import (
    COLOURS,
    COLUMN,
    MARKERS,
    UNIT_LINE,
    Style,
    mark_steps,
    plain_ticks,
)

FEW = 6  # layers that have a line and a name each


@picture("step", "layer", "noise_scale", of="layer", width=COLUMN + 0.6, height=2.6)
def noise_scale_through_training(ax: Axes, table: pd.DataFrame, batch_size: int) -> None:
    """Draw B_simple of all layers together at every measured step, and of each where they are few,
    else a line for their median in a shade from the least to the most; a table of ``noise_scale``.

    A dashed line is at ``batch_size`` examples: above it a step is more noise than gradient. Bars
    are one standard error, where it is known. An arrow up from ``noise_scale_least`` stands
    for what is not known to be finite, as noise hides the gradient.
    """
    if not table[["noise_scale"]].assign(least=take(table, LEAST)).notna().any(axis=None):
        raise ValueError("no noise scale is known: of no layer is the gradient above its noise")
    layers = [name for name in dict.fromkeys(table["layer"]) if name != TOTAL]
    known = table.assign(noise_scale=table["noise_scale"].where(take(table, LEAST).isna()))
    short = dict(zip(layers, shorten(layers), strict=True))
    for i, name in enumerate([TOTAL, *layers]):
        part = known[known["layer"] == name]
        whole = name == TOTAL
        colour = COLOURS[0] if whole else COLOURS[1 + i % 9] if len(layers) <= FEW else "0.6"
        if whole or len(layers) <= FEW:
            bars = clip_bars(part["noise_scale"], take(part, "noise_scale_stderr"))
            style: Style = {"color": colour, "elinewidth": 0.8, "linewidth": 1.6 if whole else 0.7}
            mark = f"{MARKERS[i % len(MARKERS)]}-"
            label = TOTAL if whole else short[name]
            ax.errorbar(part["step"], part["noise_scale"], bars, fmt=mark, label=label, **style)
        least = take(part, LEAST)
        arrows: Style = {"lolims": True, "fmt": "none", "color": colour, "capsize": 2}
        ax.errorbar(part["step"], least, 0.4 * least, elinewidth=0.9, **arrows)
    if len(layers) > FEW:
        shade_layers(ax, known[known["layer"] != TOTAL])
    if take(table, LEAST).notna().any():
        ax.plot([], [], marker="$\u2191$", color="0.5", linestyle="", label="at least", ms=8)
    ax.axhline(batch_size, label="batch size", **UNIT_LINE)
    bars_are = ", ± stderr" if take(table, "noise_scale_stderr").notna().any() else ""
    ax.set(ylabel="noise scale $B_{simple}$ (examples)" + bars_are, yscale="log")
    mark_steps(ax, list(table["step"]))
    plain_ticks(ax.yaxis)


LEAST = "noise_scale_least"


def shade_layers(ax: Axes, table: pd.DataFrame) -> None:
    """The median of the layers, and a shade over all of them."""
    by = table.groupby("step")["noise_scale"]
    ax.plot(by.median(), ".-", color="0.5", linewidth=0.8, label="layers: median, least to most")
    ax.fill_between(by.min().index, by.min(), by.max(), color="0.5", alpha=0.15, linewidth=0)
