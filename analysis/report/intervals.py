"""How often intervals hold the truth: by quantity and number of batches."""

from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.report.contents import Contents
from sketchvar.analysis.report.table import (
    Table,
    list_rows,
    show_number,
    show_text,
    write_percent,
    write_whole,
)

ENOUGH = 0.9  # of intervals that are 95 % in name
WORDS = {
    "batches": "how many are averaged in one measurement, as by --batches of run",
    "needed": f"the fewest batches from which on {ENOUGH:.0%} of the intervals or more hold it",
    "told / true": "the standard error that one batch tells, over the spread that there is",
}


def read(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of intervals."""
    rows = records.read_rows(folder / "intervals.parquet")
    about = records.read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    return Contents(
        title=str(about.get("run", folder.name)),
        tables=(tabulate_coverage(rows),),
        pictures=(),
        words=WORDS,
        provenance=about,
    )


def tabulate_coverage(rows: pd.DataFrame) -> Table:
    """The part of intervals that hold the truth, over layers, by quantity and number of batches."""
    keys = ["quantity", "estimator"]
    rows = rows.assign(part=rows["told"] / rows["true"])
    covered = rows.pivot_table(index=keys, columns="batches", values="covered", sort=False)
    least = rows["batches"].min()
    part = rows[rows["batches"] == least].groupby(keys, sort=False)["part"].median()
    found = covered.rename(columns=str).assign(part=part, needed=find_needed(covered))
    sizes = [str(size) for size in covered.columns]
    columns = (
        show_text("quantity"),
        show_text("estimator"),
        *(show_number(size, None, write_percent) for size in sizes),
        show_number("needed", None, write_whole),
        show_number("part", "told / true", "{:.2f}".format),
    )
    groups = " / ".join(str(n) for n in rows.groupby("batches")["groups"].max())
    caption = (
        f"95 % in name (± 1.96 standard errors), means over {rows['layer'].nunique()} layers, of"
        f" {groups} measurements of {' / '.join(sizes)} batches. –: no error is known."
    )
    return Table(
        "intervals",
        "How many intervals hold the truth, by the number of batches",
        columns,
        list_rows(found.reset_index()),
        caption,
    )


def find_needed(covered: pd.DataFrame) -> pd.Series:
    """The fewest batches from which on there are enough; NaN where the most tried are not."""
    enough = covered.ge(ENOUGH).iloc[:, ::-1].cummin(axis=1)
    return enough.apply(lambda row: min(row.index[row], default=float("nan")), axis=1)
