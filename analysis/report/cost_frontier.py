"""What the whole catalog costs for its bytes: the best of every budget, beside its variance."""

import math
from functools import partial

import pandas as pd

from sketchvar.analysis.cost.frontier_figures import as_ratio, cost_frontier
from sketchvar.analysis.frontier.best import BASELINE, find_best
from sketchvar.analysis.report.contents import Picture
from sketchvar.analysis.report.table import (
    Column,
    Row,
    Table,
    name_method,
    show_error,
    show_number,
    show_text,
    write_horizon,
    write_percent,
    write_whole,
)

MANY = 16  # methods beyond which a table and a legend of all of them help nobody
BUDGETS = (0.5, 0.25, 0.125, 0.06, 0.03)
PLACES = ("best", "second", "third")


def has_many(rows: pd.DataFrame) -> bool:
    """Whether so many methods were measured that the best for their bytes are to be shown."""
    return "family" in rows and len(rows[["estimator", "rate"]].drop_duplicates()) > MANY


def picture(rows: pd.DataFrame) -> Picture:
    """The figure of the frontier in cost."""
    caption = "What bytes buy: variance and cost of the whole catalog"
    return Picture("cost_frontier", caption, partial(cost_frontier, rows), wide=True)


def tabulate(rows: pd.DataFrame) -> Table:
    """The least cost over one step, and over the longest finite horizon, for every budget."""
    rows = rows[rows["step"] == rows["step"].max()]
    lines: list[Row] = []
    for horizon in list_horizons(rows):
        mine = as_ratio(rows[rows["horizon"] == horizon], "cost_ratio")
        mine = mine.assign(rank=mine["variance_ratio"].rank(method="min"))
        for budget in BUDGETS:
            best = [line for _, line in find_best(mine, budget).iterrows()]
            base = find_best(mine[mine["estimator"] == BASELINE], budget, 1)
            named = list(zip(PLACES, best, strict=False))
            named += [("baseline", line) for _, line in base.iterrows()]
            for place, line in named:
                first = place == PLACES[0]
                lines.append(
                    {"horizon": horizon, "budget": budget, "place": place, "first": first}
                    | {str(name): value for name, value in line.items() if name != "horizon"}
                )
    columns = (
        Column("horizon", lambda row: write_horizon(row["horizon"]) if row["first"] else ""),
        Column("budget", lambda row: f"{100 * row['budget']:g} %" if row["first"] else ""),
        show_text("place", ""),
        Column("estimator", name_method, text=True),
        show_number("kept_bytes", "bytes kept", write_whole),
        show_number("share", "of X's", write_percent),
        show_error("cost_ratio", "cost"),
        show_number("variance_ratio", "variance"),
        show_number("rank", None, write_whole),
    )
    return Table("frontier", TITLE, columns, tuple(lines), CAPTION)


TITLE = "Least cost of noise / cost of the minibatch's noise for the bytes kept of X"
CAPTION = (
    "± one standard error. rank: its place by variance, among all that were measured. Oracles and"
    " biased estimators are never among the best."
)


def list_horizons(rows: pd.DataFrame) -> list[float]:
    """One step, and the longest finite horizon."""
    finite = sorted(h for h in set(rows["horizon"]) if math.isfinite(h))
    return list(dict.fromkeys((finite[0], finite[-1])))
