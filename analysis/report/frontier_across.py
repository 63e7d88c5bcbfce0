"""What several frontiers say beside each other: the least ratio of each, budget by budget."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from sketchvar.analysis.frontier.best import BASELINE, find_best
from sketchvar.analysis.report.contents import Contents, Picture, name_folders
from sketchvar.analysis.report.frontier import KEPT, WORDS, load, name_estimator
from sketchvar.analysis.report.table import Column, Row, Table, show_number, show_text
from sketchvar.analysis.report.verdict import BUDGETS, write_between


def read_beside(folders: Sequence[Path]) -> Contents:
    """What several folders of ``frontier`` say beside each other, in the order given."""
    from sketchvar.analysis.frontier.across_figures import frontiers_across

    names = name_folders(folders)
    loaded = [load(folder) for folder in folders]
    parts = zip(loaded, names, strict=True)
    table = pd.concat([each.table.assign(of=name) for each, name in parts], ignore_index=True)
    budgets = sorted({b for each in loaded for b in each.budgets}, reverse=True)
    caption = "Least ratio for the bytes that can be spent, of every frontier on one scale"
    return Contents(
        title=" beside ".join(names),
        tables=(tabulate(table, budgets),),
        pictures=(Picture("frontiers_across", caption, partial(frontiers_across, table)),),
        words=WORDS,
        provenance={name: str(folder) for name, folder in zip(names, folders, strict=True)},
        verdict=judge(table),
    )


def tabulate(table: pd.DataFrame, budgets: Sequence[float]) -> Table:
    """For each budget the best of each frontier, beside its baseline."""
    rows: list[Row] = []
    for budget in budgets:
        for i, (of, part) in enumerate(table.groupby("of", sort=False)):
            best = find_best(part, budget, 1)
            base = find_best(part[part["estimator"] == BASELINE], budget, 1)
            if len(best):
                line = {str(name): value for name, value in best.iloc[0].items()}
                beside = base["ratio"].iloc[0] if len(base) else None
                rows.append({**line, "budget": budget, "of": of, "first": i == 0, "base": beside})
    columns = (
        Column("budget", lambda row: f"{100 * row['budget']:g} %" if row["first"] else ""),
        show_text("of", "frontier"),
        Column("estimator", name_estimator, text=True),
        *KEPT,
        show_number("ratio"),
        show_number("base", BASELINE),
    )
    title = "Least estimator variance / minibatch variance (by example) of each frontier"
    return Table("frontiers", title, columns, tuple(rows), "1 = as noisy as the minibatch.")


def judge(table: pd.DataFrame) -> tuple[str, ...]:
    """The best of each frontier for three budgets."""
    said = []
    for budget in BUDGETS:
        found = [(of, find_best(part, budget, 1)) for of, part in table.groupby("of", sort=False)]
        ends = [
            f"{best.iloc[0]['estimator']} in {of}, {write_between(best.iloc[0])}"
            for of, best in found
            if len(best)
        ]
        if ends:
            said.append(f"For {100 * budget:g} % of X's bytes the least is {'; '.join(ends)}.")
    return tuple(said)
