"""What a frontier says: the best estimators for each budget of bytes."""

from functools import partial
from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.frontier.best import BASELINE, average, find_best, merge_lines
from sketchvar.analysis.frontier.rows import BUDGETS
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import Column, Row, Table, show_number, show_text
from sketchvar.analysis.report.verdict import judge_frontier

PLACES = ("best", "second", "third")
WORDS = {
    "bytes": "what may be kept of X, indices, scales and seeds included, over the bytes of X",
    "ratio": "estimator variance / minibatch variance (by example), median over layers and steps",
    BASELINE: "the baseline: the same as a smaller batch of rows",
    "draws": "no closed form: the variance is that of repeated draws",
}


def read(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``frontier``. Raises ValueError where no ratio is above 0."""
    from sketchvar.analysis.frontier.figure import frontier

    file = next(folder / name for name in FILES if (folder / name).exists())
    rows = records.read_rows(file)
    if not (rows["ratio"] > 0).any():
        raise ValueError(f"no ratio can be drawn: every variance in {file} is 0 or not a number")
    about = folder / "frontier.json"
    found = records.read_json(about) if about.exists() else {}
    asked = found.get("options", {}).get("budgets")
    budgets = asked if isinstance(asked, list) else list(BUDGETS)  # text in earlier versions
    table = average(rows)
    caption = "Least ratio for the bytes that can be spent, a panel for each family"
    return Contents(
        title=f"frontier {folder.name}",
        tables=(tabulate_budgets(table, budgets),),
        pictures=(Picture("frontier", caption, partial(frontier, merge_lines(table)), wide=True),),
        words=WORDS,
        provenance=found,
        verdict=judge_frontier(table),
    )


FILES = ("frontier.parquet", "rows.parquet")


def tabulate_budgets(table: pd.DataFrame, budgets: list[float]) -> Table:
    """The best estimators for each budget, then the baseline."""
    rows: list[Row] = []
    for budget in sorted(budgets, reverse=True):
        found = zip(PLACES, find_best(table, budget).iterrows(), strict=False)
        lines = [(place, line) for place, (_, line) in found]
        baseline = find_best(table[table["estimator"] == BASELINE], budget, 1)
        lines += [("baseline", line) for _, line in baseline.iterrows()]
        for place, line in lines:
            named = {name: line[name] for name in ("estimator", "ratio", "stderr", "fraction")}
            rows.append({"budget": budget, "place": place, "first": line is lines[0][1], **named})
    columns = (
        Column("bytes", lambda row: f"{100 * row['budget']:g} %" if row["first"] else ""),
        show_text("place", ""),
        Column("estimator", name_estimator, text=True),
        show_number("ratio"),
    )
    return Table(
        "frontier",
        "Least estimator variance / minibatch variance (by example) for the bytes kept of X",
        columns,
        tuple(rows),
        "1 = as noisy as the minibatch. Oracles and biased estimators are never among the best.",
    )


def name_estimator(row: Row) -> str:
    """The estimator, and whether its variance was drawn."""
    return f"{row['estimator']} (draws)" if row["stderr"] > 0 else str(row["estimator"])
