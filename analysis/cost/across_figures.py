"""Figures of several runs of costs beside each other, as of models that differ in depth."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from sketchvar.analysis.cost.figures import at_horizon
from sketchvar.analysis.cost.fork_figures import PREDICTED, name_noise, only_tuned
from sketchvar.analysis.noise.horizon import name_horizon
from sketchvar.analysis.noise.select import in_order
from sketchvar.analysis.picture import Facet, list_series, picture, together
from sketchvar.analysis.picture.select import add_rate, list_some
from sketchvar.analysis.style import (
    COLOURS,
    FILLS,
    MARKERS,
    PAGE,
    UNIT_LINE,
    Style,
    find_look,
    plain_ticks,
)

FAINT = 3.0


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


def by_prediction(rows: pd.DataFrame, options: Mapping[str, Any]) -> list[Facet]:
    """A panel for each prediction that the rows have, or for the one that is asked for. Raises
    ValueError where they do not have it.
    """
    there = [field for field in PREDICTED if field in rows and rows[field].notna().any()]
    asked = [options["field"]] if "field" in options else there
    if not asked or not set(asked) <= set(there):
        raise ValueError(
            f"no prediction {options.get('field', '')!r} in these rows; there are"
            f" {list_some(there) or 'none'}"
        )
    return [Facet(PREDICTED[field][0], rows, {"field": field}) for field in asked]


@picture(
    "of", "estimator", "tuned", "effective", "low", "high", "by_cost",
    width=PAGE, height=2.6, split=by_prediction,
)  # fmt: skip
def effective_batches_across(ax: Axes, rows: pd.DataFrame, field: str = "by_cost") -> None:
    """Draw the effective batch that forks were read off at, with its interval, over what was
    predicted of it, a panel for each prediction, or for that of one ``field``: every step of every
    run (``of``) of ``effective.parquet`` whose scale has an order (``in_order``), methods at their
    own best learning rate. On the line a prediction is right; left of it training does better than
    foretold. Faint: the interval spans more than a factor of ``FAINT``. Markers are filled by run;
    where runs are many, they stand for the ``task``, and colours for the ``family`` of estimators.
    Raises ValueError where no scale has an order.
    """
    rows = only_tuned(in_order(rows))
    if rows.empty:
        raise ValueError("in none of these runs did the whole batch end lowest: nothing to draw")
    told = rows.reindex(columns=["family", "task"]).notna().all(axis=None)  # older runs do not
    many = bool(told) and rows["of"].nunique() > len(FILLS)
    hue, of = ("family", "task") if many else ("label", "of")
    runs, hues = (list(dict.fromkeys(rows[column])) for column in (of, hue))
    unsure = rows["high"] > FAINT * rows["low"]
    ends = [float(rows[["low", field]].to_numpy().min()), 1.0]
    ax.plot(ends, ends, **UNIT_LINE)

    def look(part: pd.DataFrame) -> Style:
        one, nth = part.iloc[0], runs.index(part[of].iloc[0])
        if many:
            colour = COLOURS[hues.index(one[hue]) % len(COLOURS)]
            return {"color": colour, "marker": MARKERS[nth % len(MARKERS)]}
        colour, marker = find_look(str(one["estimator"]))
        return {"color": colour, "marker": marker, "fillstyle": FILLS[nth % len(FILLS)]}

    for (_, _, faint), part in rows.groupby([hue, of, unsure], sort=False):
        bars = [part["effective"] - part["low"], part["high"] - part["effective"]]
        ax.errorbar(
            part[field], part["effective"], [bar.clip(lower=0) for bar in bars], linestyle="",
            elinewidth=0.6, markeredgewidth=0.8, markersize=5, alpha=0.3 if faint else 1.0,
            **look(part),
        )  # fmt: skip
    as_hue: Style = {"marker": "o"} if many else {"fillstyle": "full"}
    as_run: Style = {"color": "0.4"} if many else {"color": "0.4", "marker": "o"}
    for column, marks in ((hue, as_hue), (of, as_run)) if len(runs) > 1 else ((hue, as_hue),):
        for name, part in rows.groupby(column, sort=False):
            ax.plot([], [], linestyle="", **(look(part) | marks), label=str(name))
    ax.set(xscale="log", yscale="log", xlabel="predicted", ylabel="effective batch / batch, 95 %")
    ax.set_ylim(0.85 * rows["low"].min(), 1.2)
    for axis in (ax.xaxis, ax.yaxis):
        plain_ticks(axis)


def draw_across(ax: Axes, rows: pd.DataFrame, field: str, of: str) -> None:
    """``field`` of every ``label`` over the runs, a little apart."""
    runs, series = list(dict.fromkeys(rows["of"])), list_series(rows, of)
    for i, (label, part, marks) in enumerate(series):
        apart = 0.3 * (i / max(len(series) - 1, 1) - 0.5)
        places = [runs.index(run) + apart for run in part["of"]]
        how = marks | {"linewidth": 0.8, "elinewidth": 0.7, "label": label}
        ax.errorbar(places, part[field], 2 * part[f"{field}_stderr"], **how)
    ax.set_xticks(range(len(runs)), runs)
