"""Layers on an axis: names without what all of them begin with, and those of deep models as a heat
map of block × kind.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from sketchvar.analysis.style import STYLE, plain_ticks

MANY = 40  # layers beyond which each has no line of its own
ALONE = "–"  # the block of a layer that is in none
WIDE = 100.0  # a colour scale goes this far from 1


def is_deep(rows: pd.DataFrame) -> bool:
    """Whether there are too many layers for a line each."""
    return rows["layer"].nunique() > MANY


def split(layer: str) -> tuple[str, str]:
    """The block of a layer and its kind: up to the first number in its name, and what follows
    without numbers.

    >>> split("bert.encoder.layer.11.attention.self.query")
    ('bert.encoder.layer.11', 'attention.self.query')
    """
    found = re.match(r"(.*?(?:^|\.)\d+)\.(.+)$", layer)
    if found is None:
        return ALONE, layer
    kind = ".".join(part for part in found[2].split(".") if not part.isdigit())
    return found[1], kind or layer


def find_prefix(names: Sequence[str]) -> str:
    """What most layers begin with, up to a dot: those that are in a block."""
    blocks = [name for name in names if split(name)[0] != ALONE]
    first, last = min(blocks, default=""), max(blocks, default="")
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return first[:shared].rpartition(".")[0] if len(blocks) > 1 else ""


def shorten(layers: Sequence[str]) -> list[str]:
    """Names as they stand on an axis: without the prefix that layers in blocks share, as
    ``bert.encoder.layer``.
    """
    prefix = find_prefix(layers)
    start = f"{prefix}."
    return [name.removeprefix(start) if prefix else name for name in layers]


def count_lines(rows: pd.DataFrame) -> int:
    """How many lines ``draw_blocks`` makes."""
    kinds = {split(name)[1] for name in rows["layer"]}
    return len(kinds) * rows["label"].nunique()


def draw_blocks(ax: Axes, rows: pd.DataFrame, value: str, label: str) -> None:
    """A heat map: block by block from the input, a line for every kind of layer under each
    ``label``; medians where several layers of a kind are in a block. ``label`` names the colours.
    """
    pairs = [split(name) for name in rows["layer"]]
    table = rows.assign(block=[b for b, _ in pairs], kind=[k for _, k in pairs])
    cells = table.pivot_table(
        index=["label", "kind"], columns="block", values=value, aggfunc="median", dropna=False
    )
    blocks = [b for b in dict.fromkeys(table["block"]) if b != ALONE]
    blocks += [ALONE] if ALONE in cells else []
    order = [(n, k) for n in dict.fromkeys(table["label"]) for k in dict.fromkeys(table["kind"])]
    cells = cells.reindex(index=[pair for pair in order if pair in cells.index], columns=blocks)
    shown = cells.where(cells > 0)
    far = float(np.nanmax(np.abs(np.log10(shown.to_numpy(float))), initial=0.1))
    top = min(10**far, WIDE)
    mesh = ax.pcolormesh(
        shown, cmap=colormaps["RdBu_r"], norm=LogNorm(1 / top, top), edgecolors="white", lw=0.2
    )
    ax.invert_yaxis()
    ax.grid(False)
    size = STYLE["xtick.labelsize"] - (1 if len(cells) > 30 else 0)
    ax.set_yticks(np.arange(len(cells)) + 0.5, [kind for _, kind in cells.index], fontsize=size)
    every = max(1, len(blocks) // 16)
    names = shorten([f"{block}.x" for block in blocks])
    ticks = range(0, len(blocks), every)
    ax.set_xticks([i + 0.5 for i in ticks], [names[i].removesuffix(".x") for i in ticks])
    ax.set_xlabel("block, from the input")
    at = 0
    for name, count in cells.groupby(level=0, sort=False).size().items():
        ax.axhline(at, color="black", linewidth=0.6)
        ax.text(1.01, at + count / 2, str(name), transform=ax.get_yaxis_transform(), va="center")
        at += count
    bar = ax.figure.colorbar(mesh, ax=ax, location="bottom", aspect=40, pad=0.02, extend="both")
    bar.set_label(label)
    plain_ticks(bar.ax.xaxis)
