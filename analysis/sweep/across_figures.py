"""The figure of several sweeps beside each other: what each method loses in every one."""

import pandas as pd
from matplotlib.axes import Axes

from sketchvar.analysis.picture import picture, together
from sketchvar.analysis.style import COLOURS, COLUMN, MARKERS, UNIT_LINE
from sketchvar.analysis.sweep.figures import FINAL, is_resolved, name_methods, select_drawn


def find_height(table: pd.DataFrame) -> float:
    """Inches of a picture with a line for each method and sweep."""
    shown = select_drawn(table)
    return 1.1 + 0.09 * len(shown) + 0.1 * len(set(name_methods(shown))) if len(shown) else 2.0


@picture(
    "of", "estimator", "rate", "batch", "checkpointing", *FINAL,
    width=COLUMN * 1.4, height=find_height, split=together,
)  # fmt: skip
def losses_across(ax: Axes, table: pd.DataFrame) -> None:
    """Draw final validation loss less that of exact training with its 95 % interval, a colour for
    every sweep (``of``), smaller batches below: a ``table`` of rows of
    several ``summary.parquet``, as ``final_losses`` draws one.
    """
    parts = [part for _, part in table.groupby("of", sort=False)]
    shown = pd.concat([select_drawn(part) for part in parts])  # each has its own whole batch
    if shown.empty:
        raise ValueError("no method of these summaries has a difference to exact training")
    size = shown["batch"].where(shown["estimator"] == "exact", 0)
    shown = shown.assign(method=name_methods(shown), size=size).sort_values("size", kind="stable")
    names, sweeps = list(dict.fromkeys(shown["method"])), list(dict.fromkeys(table["of"]))
    for i, sweep in enumerate(sweeps):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        apart = 0.5 * (i / max(len(sweeps) - 1, 1) - 0.5)
        ax.plot([], [], marker, color=colour, label=str(sweep))
        for line in shown[shown["of"] == sweep].to_dict("records"):
            middle, low, high = (line[field] for field in FINAL)
            place = names.index(line["method"]) + apart
            ax.plot([low, high], [place, place], color=colour, linewidth=1)
            face = colour if is_resolved(line) else "white"
            ax.plot(middle, place, marker, color=colour, markerfacecolor=face, markersize=3.5)
    ax.axvline(0, **UNIT_LINE)
    ax.set_xlabel("final validation loss − exact (95 %; filled: resolved)")
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
