"""What a frontier says: the best estimators for each budget of bytes."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.frontier.best import BASELINE, average, find_best, merge_lines
from sketchvar.analysis.frontier.rows import BUDGETS
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import (
    Column,
    Row,
    Table,
    show_number,
    show_text,
    write_percent,
    write_whole,
)
from sketchvar.analysis.report.verdict import judge_frontier

PLACES = ("best", "second", "third")
FIELDS = ("estimator", "ratio", "stderr", "kept_bytes", "fraction")
FILES = ("frontier.parquet", "rows.parquet")
KEPT = (
    show_number("kept_bytes", "bytes kept", write_whole),
    show_number("fraction", "of X's", write_percent),
)
WORDS = {
    "budget": "what may be kept of X over the bytes of X",
    "bytes kept": "payload, indices, scales and seeds, of all layers together, mean over steps",
    "ratio": "estimator variance / minibatch variance (by example), median over layers and steps",
    BASELINE: "the baseline: the same as a smaller batch of rows",
    "draws": "no closed form: the variance is that of repeated draws",
}


def read(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``frontier``. Raises ValueError where no ratio is above 0."""
    from sketchvar.analysis.frontier.figure import frontier

    table, budgets, found = load(folder)
    caption = "Least ratio for the bytes that can be spent, a panel for each family"
    return Contents(
        title=folder.name if "frontier" in folder.name else f"frontier {folder.name}",
        tables=(tabulate_budgets(table, budgets),),
        pictures=(Picture("frontier", caption, partial(frontier, merge_lines(table)), wide=True),),
        words=WORDS,
        provenance=found,
        verdict=judge_frontier(table),
    )


class Loaded(NamedTuple):
    """A frontier averaged over layers and steps, the budgets asked for, and what is said of it."""

    table: pd.DataFrame
    budgets: list[float]
    about: dict[str, Any]


def load(folder: Path) -> Loaded:
    """Load the files of a frontier. Raises ValueError where no ratio is above 0."""
    file = next(folder / name for name in FILES if (folder / name).exists())
    rows = records.read_rows(file)
    if not (rows["ratio"] > 0).any():
        raise ValueError(f"no ratio can be drawn: every variance in {file} is 0 or not a number")
    about = folder / "frontier.json"
    found = records.read_json(about) if about.exists() else {}
    asked = found.get("options", {}).get("budgets")
    budgets = asked if isinstance(asked, list) else list(BUDGETS)  # text in earlier versions
    return Loaded(average(rows), budgets, found)


def tabulate_budgets(table: pd.DataFrame, budgets: list[float]) -> Table:
    """The best estimators for each budget, then the baseline."""
    rows: list[Row] = []
    for budget in sorted(budgets, reverse=True):
        found = zip(PLACES, find_best(table, budget).iterrows(), strict=False)
        lines = [(place, line) for place, (_, line) in found]
        baseline = find_best(table[table["estimator"] == BASELINE], budget, 1)
        lines += [("baseline", line) for _, line in baseline.iterrows()]
        for place, line in lines:
            named = {name: line[name] for name in FIELDS}
            rows.append({"budget": budget, "place": place, "first": line is lines[0][1], **named})
    columns = (
        Column("budget", lambda row: f"{100 * row['budget']:g} %" if row["first"] else ""),
        show_text("place", ""),
        Column("estimator", name_estimator, text=True),
        *KEPT,
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
