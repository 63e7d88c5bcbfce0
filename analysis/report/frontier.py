"""What a frontier says: the best estimators for each budget of bytes."""

from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.frontier.best import BASELINE, average, best, merge_lines
from sketchvar.analysis.frontier.rows import BUDGETS
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import Column, Row, Table, values, write_percent

PLACES = ("best", "second", "third")
WORDS = {
    "bytes": "what may be kept of X, indices, scales and seeds included, over the bytes of X",
    "ratio": "estimator variance / minibatch variance (by example), median over layers and steps",
    BASELINE: "the baseline: the same as a smaller batch of rows",
    "draws": "no closed form: the variance is that of repeated draws",
}


def contents(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``frontier``. Raises ValueError where no ratio is above 0."""
    from sketchvar.analysis.frontier.figure import frontier

    file = next(folder / name for name in FILES if (folder / name).exists())
    rows = records.read_rows(file)
    if not (rows["ratio"] > 0).any():
        raise ValueError(f"no ratio can be drawn: every variance in {file} is 0 or not a number")
    about = folder / "frontier.json"
    found = records.read_json(about) if about.exists() else {}
    budgets = [float(b) for b in found.get("options", {}).get("budgets", BUDGETS)]
    table = average(rows)
    caption = "Least ratio for the bytes that can be spent, a panel for each family"
    return Contents(
        title=f"frontier {folder.name}",
        tables=(budget_table(table, budgets),),
        pictures=(Picture("frontier", caption, lambda: frontier(merge_lines(table))),),
        words=WORDS,
        provenance=found,
    )


FILES = ("frontier.parquet", "rows.parquet")


def budget_table(table: pd.DataFrame, budgets: list[float]) -> Table:
    """The best estimators for each budget, beside the baseline."""
    rows = []
    for budget in sorted(budgets, reverse=True):
        row: dict[str, object] = {"budget": budget}
        for place, (_, line) in zip(PLACES, best(table, budget).iterrows(), strict=False):
            note = " (draws)" if line["stderr"] > 0 else ""
            row |= {place: f"{line['estimator']}{note}", f"{place}_ratio": line["ratio"]}
        baseline = best(table[table["estimator"] == BASELINE], budget)["ratio"]
        rows.append(row | ({BASELINE: float(baseline.iloc[0])} if len(baseline) else {}))
    columns = [values("budget", "bytes", write_percent)]
    for place in PLACES:
        columns += [name_column(place), values(f"{place}_ratio", "ratio")]
    return Table(
        "frontier",
        "Least estimator variance / minibatch variance (by example) for the bytes kept of X",
        (*columns, values(BASELINE)),
        tuple(rows),
        "1 = as noisy as the minibatch. Oracles and biased estimators are never among the best.",
    )


def name_column(place: str) -> Column:
    """Which estimator is at a place; empty where fewer fit the budget."""

    def show(row: Row) -> str:
        return str(row.get(place, ""))

    return Column(place, show, text=True)
