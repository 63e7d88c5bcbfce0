"""Figures of several runs of costs beside each other, as of models that differ in depth."""

import pandas as pd
from matplotlib.axes import Axes

from sketchvar.analysis.cost.figures import at_horizon, name_horizon
from sketchvar.analysis.cost.fork_figures import name_noise
from sketchvar.analysis.picture import list_series, picture, together
from sketchvar.analysis.picture.select import add_rate
from sketchvar.analysis.style import UNIT_LINE, plain_ticks


@picture(
    "of", "noise", "rate", "seeds", "coherence", "coherence_stderr",
    of="noise", height=3.2, split=together,
)  # fmt: skip
def coherence_across(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the coherence of every noise in every run (``of``), ± 2 standard errors: rows of several
    ``coherence.parquet``.
    """
    draw_across(ax, rows.assign(label=name_noise(rows)), "coherence", "noise")
    ax.axhline(0, **UNIT_LINE)
    ax.set_ylabel("1 − cost where tensors err apart / cost, ± 2 stderr")


@picture(
    "of", "estimator", "rate", "horizon", "cost_ratio", "cost_ratio_stderr",
    height=3.2, split=together,
)  # fmt: skip
def cost_across(ax: Axes, rows: pd.DataFrame, horizon: float = 1) -> None:
    """Draw the cost ratio of every estimator in every run (``of``), over one step unless another
    horizon is given, ± 2 standard errors: rows of several ``cost.parquet``.
    """
    draw_across(ax, add_rate(at_horizon(rows, horizon)), "cost_ratio", "estimator")
    ax.axhline(1, **UNIT_LINE)
    ax.set_yscale("log")
    plain_ticks(ax.yaxis)
    ax.set_ylabel(f"cost / cost of the minibatch's noise, {name_horizon(horizon)}, ± 2 stderr")


def draw_across(ax: Axes, rows: pd.DataFrame, field: str, of: str) -> None:
    """``field`` of every ``label`` over the runs, a little apart."""
    runs, series = list(dict.fromkeys(rows["of"])), list_series(rows, of)
    for i, (label, part, marks) in enumerate(series):
        apart = 0.3 * (i / max(len(series) - 1, 1) - 0.5)
        places = [runs.index(run) + apart for run in part["of"]]
        how = marks | {"linewidth": 0.8, "elinewidth": 0.7, "label": label}
        ax.errorbar(places, part[field], 2 * part[f"{field}_stderr"], **how)
    ax.set_xticks(range(len(runs)), runs)
