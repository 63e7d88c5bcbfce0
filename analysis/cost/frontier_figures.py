"""The figure of the frontier in cost: what bytes buy, in variance and in cost, of the whole
catalog.
"""

import math

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from sketchvar.analysis.cost.figures import last_step, name_horizon
from sketchvar.analysis.frontier.best import BASELINE, FAMILIES, find_envelope, find_line
from sketchvar.analysis.style import PAGE, UNIT_LINE, in_paper_style, legend_above, plain_ticks

LEAST = 1e-4  # of the minibatch's noise: below it nobody looks
TICKS = (0.03, 0.06, 0.125, 0.25, 0.5, 1)


@in_paper_style
def cost_frontier(rows: pd.DataFrame) -> Figure:
    """Variance ratio, one-step cost ratio and that of the longest finite horizon against the bytes
    that are kept of X, a line per estimator in the colour of its family, ± 2 standard errors; the
    last step of ``cost.parquet``.

    The broad line is the least of all that are unbiased; biased ones are drawn thin and dotted.
    """
    rows = last_step(rows)
    horizons = sorted(h for h in set(rows["horizon"]) if math.isfinite(h))
    panels = [("variance_ratio", horizons[0], "variance / minibatch variance")]
    panels += [
        ("cost_ratio", h, f"cost / minibatch's cost, {name_horizon(h)}")
        for h in dict.fromkeys((horizons[0], horizons[-1]))
    ]
    figure, grid = plt.subplots(
        1, len(panels), figsize=(PAGE, 3.4), sharex=True, sharey=True, layout="constrained"
    )
    for axes, (field, horizon, title) in zip(grid, panels, strict=True):
        draw_panel(axes, as_ratio(rows[rows["horizon"] == horizon], field))
        axes.axhline(1, **UNIT_LINE)
        axes.set(title=title, xscale="log", yscale="log")
    axes = grid[0]
    axes.set_xticks(TICKS)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=max(axes.get_ylim()[0], LEAST))
    plain_ticks(axes.yaxis)
    axes.set_ylabel("noise of an estimator / noise of the minibatch")
    figure.supxlabel("bytes kept of X (payload, indices, scales, seed)", fontsize=8)
    legend_above(figure, axes)
    return figure


def as_ratio(rows: pd.DataFrame, field: str) -> pd.DataFrame:
    """Rows of ``cost.parquet`` as ``find_best`` and ``find_envelope`` take them, ``field`` their
    ratio.
    """
    flags = {name: rows.get(name, False) for name in ("oracle", "biased")}
    return rows.assign(
        ratio=rows[field],
        stderr=rows[f"{field}_stderr"],
        fraction=rows["share"],
        line=rows["estimator"].map(find_line),
        **flags,
    )


def draw_panel(axes: Axes, rows: pd.DataFrame) -> None:
    """Every line, the least of all, and uniform rows."""
    rows = rows[rows["ratio"] > 0]
    for i, family in enumerate(FAMILIES):
        label: str | None = family
        for _, each in rows[rows["family"] == family].groupby("line", sort=False):
            each, biased = each.sort_values("fraction"), bool(each["biased"].iloc[0])
            axes.errorbar(
                each["fraction"],
                each["ratio"],
                yerr=2 * each["stderr"],
                fmt="o:" if biased else "o-",
                color=f"C{i}",
                alpha=0.35 if biased else 0.7,
                linewidth=0.7,
                elinewidth=0.4,
                markersize=2,
                markeredgewidth=0,
                label=label,
            )
            label = None
    least = find_envelope(rows)
    axes.plot(least["fraction"], least["ratio"], color="0.8", linewidth=5, zorder=0)
    base = rows[rows["estimator"] == BASELINE].sort_values("fraction")
    if len(base):
        axes.plot(base["fraction"], base["ratio"], "k-", linewidth=1.6, label=BASELINE, zorder=3)
