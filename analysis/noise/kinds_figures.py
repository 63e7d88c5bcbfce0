"""The picture of the noise scale of a model, and of each kind of its parameters."""

import pandas as pd
from matplotlib.axes import Axes

from sketchvar.analysis.noise.scale import ALL
from sketchvar.analysis.picture import picture
from sketchvar.analysis.picture.series import clip_bars
from sketchvar.analysis.style import COLOURS, COLUMN, MARKERS, UNIT_LINE, mark_steps, plain_ticks

NAMES = {"linear": "linear weights", "norm": "norm layers", "bias": "biases", ALL: "whole model"}


@picture("step", "kind", "noise_scale", "noise_scale_stderr", of="kind", width=COLUMN + 0.6)
def noise_by_kind(ax: Axes, table: pd.DataFrame, batch_size: float | None = None) -> None:
    """Draw B_simple of the whole model (black) and of each kind of parameter through training: a
    table that ``NoiseScale.add`` gives.

    A dashed line is at ``batch_size`` examples, where given: above it a step is more noise than
    gradient. Bars are one standard error, where it is known. Steps at which the noise hides the
    gradient have no point.
    """
    kinds = [kind for kind in dict.fromkeys(table["kind"]) if kind != ALL]
    for i, kind in enumerate([*kinds, ALL]):
        part = table[table["kind"] == kind]
        if part.empty:
            continue
        whole = kind == ALL
        ax.errorbar(
            part["step"],
            part["noise_scale"],
            clip_bars(part["noise_scale"], part["noise_scale_stderr"]),
            fmt=f"{MARKERS[i % len(MARKERS)]}-",
            color="black" if whole else COLOURS[i % len(COLOURS)],
            linewidth=1.6 if whole else 0.8,
            elinewidth=0.8,
            label=NAMES.get(kind, kind),
        )
    if batch_size is not None:
        ax.axhline(batch_size, label="batch size", **UNIT_LINE)
    bars_are = ", ± stderr" if table["noise_scale_stderr"].notna().any() else ""
    ax.set(ylabel="noise scale $B_{simple}$ (examples)" + bars_are, yscale="log")
    mark_steps(ax, list(table["step"]))
    plain_ticks(ax.yaxis)
