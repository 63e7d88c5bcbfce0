"""The figure of the frontier in cost: what bytes buy, in variance and in cost, of the whole
catalog.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from sketchvar.analysis.cost.figures import COST, VARIANCE, at_horizon
from sketchvar.analysis.frontier.best import BASELINE, FAMILIES, find_envelope, find_line
from sketchvar.analysis.noise.horizon import name_horizon
from sketchvar.analysis.noise.select import choose_step
from sketchvar.analysis.picture import Facet, picture
from sketchvar.analysis.style import COLUMN, PALETTE, UNIT_LINE, plain_ticks

LEAST = 1e-4  # of the minibatch's noise: below it nobody looks, and lines leave the picture
TICKS = (0.01, 0.03, 0.1, 0.3, 1)
BYTES = "bytes kept of X (payload, indices, scales, seed)"


def by_question(rows: pd.DataFrame, options: Mapping[str, Any]) -> list[Facet]:
    """Panels of the variance, of the cost of one step, and of that over the longest finite
    horizon; of one ``field`` alone where it is asked for.
    """
    horizons = sorted(h for h in set(rows["horizon"]) if math.isfinite(h))
    ends = list(dict.fromkeys((horizons[0], horizons[-1])))
    asked = [("variance_ratio", horizons[0]), *(("cost_ratio", h) for h in ends)]
    if (field := options.get("field")) is not None:
        asked = [(field, options.get("horizon") or horizons[0])]
    titles = {"variance_ratio": "variance / minibatch's", "cost_ratio": "cost / minibatch's"}
    return [
        Facet(
            titles[field] + (f", {name_horizon(h)}" if field == "cost_ratio" else ""),
            rows,
            {"field": field, "horizon": h},
        )
        for field, h in asked
    ]


@picture(*COST, *VARIANCE, "share", "family", width=COLUMN, height=3.4, split=by_question)
def cost_frontier(
    ax: Axes, rows: pd.DataFrame, field: str | None = None, horizon: float | None = None
) -> None:
    """Draw variance_ratio or cost_ratio (``field``, over a ``horizon``), or both in panels, against
    the bytes that are kept of X, a line per estimator in the colour of its family, ± 2 standard
    errors; the last step of ``cost.parquet``.

    The broad line is the least of all that are unbiased; biased ones are drawn thin and dotted,
    oracles dash-dotted.
    """
    rows, field = choose_step(rows), field or "cost_ratio"
    horizon = min(rows["horizon"]) if horizon is None else horizon
    draw_families(ax, as_ratio(at_horizon(rows, horizon), field))
    ax.axhline(1, **UNIT_LINE)
    ax.set(xscale="log", yscale="log", xlabel=BYTES)
    ax.set_ylabel("noise of an estimator / noise of the minibatch")
    ax.set_xticks(TICKS)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(bottom=max(LEAST, 0.5 * rows.loc[rows[field] > 0, field].min()))
    plain_ticks(ax.yaxis)


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


def draw_families(ax: Axes, rows: pd.DataFrame) -> None:
    """Every line, the least of all, and uniform rows."""
    rows = rows[rows["ratio"] > 0]
    for i, family in enumerate(FAMILIES):
        label: str | None = family
        mine = rows[rows["family"] == family].sort_values(["biased", "oracle"], kind="stable")
        for _, each in mine.groupby("line", sort=False):  # the legend shows the first
            each = each.sort_values("fraction")
            oracle, biased = bool(each["oracle"].iloc[0]), bool(each["biased"].iloc[0])
            ax.errorbar(
                each["fraction"],
                each["ratio"],
                yerr=2 * each["stderr"],
                fmt="o-." if oracle else "o:" if biased else "o-",
                color=PALETTE[i],
                alpha=0.35 if biased or oracle else 0.7,
                linewidth=0.7,
                elinewidth=0.4,
                markersize=2,
                markeredgewidth=0,
                label=label,
            )
            label = None
    least = find_envelope(rows)
    ax.plot(least["fraction"], least["ratio"], color="0.8", linewidth=5, zorder=0)
    base = rows[rows["estimator"] == BASELINE].sort_values("fraction")
    if len(base):
        ax.plot(base["fraction"], base["ratio"], "k-", linewidth=1.6, label=BASELINE, zorder=3)
