"""The figure of the truth: closed forms over the redrawn variance."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from sketchvar.analysis.picture import draw_blocks, is_deep, picture, shorten
from sketchvar.analysis.picture.fold import count_lines
from sketchvar.analysis.style import MARKERS, PALETTE, UNIT_LINE, plain_ticks
from sketchvar.analysis.truth.ratios import divide_by_redrawn

FORMS = ("example", "row")


def stack(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each layer and form."""
    parts = [
        rows.assign(
            label=f"by {form}", over=rows[f"{form}_ratio"], bar=rows[f"{form}_ratio_stderr"]
        )
        for form in FORMS
    ]
    return pd.concat(parts, ignore_index=True)


def find_height(rows: pd.DataFrame) -> float:
    """Inches, with a line for each layer, or for each kind of a deep model."""
    if is_deep(rows):
        return 1.5 + 0.13 * count_lines(stack(divide_by_redrawn(rows)))
    return 1.1 + 0.17 * len(rows)


@picture("layer", "draws", "redrawn", *FORMS, height=find_height)
def closed_forms_and_truth(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw closed forms over the redrawn variance for every layer, ± 2 standard errors of that
    ratio; rows of ``truth``. Of more than 40 layers, a heat map of block × kind.
    """
    table = stack(divide_by_redrawn(rows))
    words = f"closed form / variance of {rows['draws'].max()} redraws"
    if is_deep(rows):
        draw_blocks(ax, table, "over", words)
        return
    layers = list(rows["layer"])
    for i, (label, part) in enumerate(table.groupby("label", sort=False)):
        places = [layers.index(layer) + 0.34 * (i - 0.5) for layer in part["layer"]]
        how = {"color": PALETTE[i], "label": f"{label} ± 2 stderr", "markersize": 3.5}
        ax.errorbar(
            part["over"], places, xerr=2 * part["bar"], fmt=MARKERS[i], elinewidth=0.8, **how
        )
    ax.axvline(1, **UNIT_LINE)
    ax.set(xscale="log", xlabel=words, ylim=(len(layers) - 0.4, -0.6))
    plain_ticks(ax.xaxis)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    ax.set_yticks(range(len(layers)), shorten(layers))
