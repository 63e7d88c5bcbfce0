"""What redrawn minibatches say: layer by layer, whether the closed forms of the variance are
true.
"""

from functools import partial
from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import Column, Row, Table, list_rows, show_number, show_text
from sketchvar.analysis.truth.rows import bound

LEVEL = 0.01  # joint: how often true forms may be called wrong
WORDS = {
    "equal weights": (
        "the form by example if each counted alike in a loss that is a mean over tokens"
    ),
    "redrawn": "the sample variance of the weight gradient over minibatches really drawn",
    "by example, by row": "the closed form of the minibatch variance in that unit, over it",
    "z": "their difference over its standard error; ! where it is beyond what chance allows",
}


def read(folder: Path, rate: float | None = None, level: float = LEVEL) -> Contents:
    """All of a folder of ``truth``, at a joint ``level`` for all layers."""
    from sketchvar.analysis.truth.figure import closed_forms_and_truth

    rows = records.read_rows(folder / "truth.parquet")
    tables = [tabulate_truth(rows, level)]
    if (folder / "estimator.parquet").exists():
        tables.append(tabulate_estimator(records.read_rows(folder / "estimator.parquet"), level))
    about = records.read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    caption = "Closed forms by example and by row, over the variance of redrawn minibatches"
    return Contents(
        title=str(about.get("run", folder.name)),
        tables=tuple(tables),
        pictures=(Picture("truth", caption, partial(closed_forms_and_truth, rows)),),
        words=WORDS,
        provenance=about,
    )


def tabulate_truth(rows: pd.DataFrame, level: float) -> Table:
    """Both closed forms over the redrawn variance, layer by layer, and whether they lie within
    their error of it.
    """
    draws = int(rows["draws"].max())
    limit = bound(level, rows["example_z"], draws)
    example, row = (int((rows[f"{form}_z"].abs() <= limit).sum()) for form in ("example", "row"))
    found = rows.assign(
        redrawn_error=rows["redrawn_stderr"] / rows["redrawn"],
        example_ratio=rows["example"] / rows["redrawn"],
        row_ratio=rows["row"] / rows["redrawn"],
    )
    columns: tuple[Column, ...] = (
        show_text("layer"),
        show_number("redrawn", None, "{:.2e}".format),
        show_number("redrawn_error", "± %", write_percentage),
        show_number("example_ratio", "by example", "{:.2f}".format),
        show_score("example_z", limit),
        show_number("row_ratio", "by row", "{:.2f}".format),
        show_score("row_z", limit),
    )
    if "unweighted" in rows:
        found = found.assign(unweighted_ratio=rows["unweighted"] / rows["redrawn"])
        columns += (
            show_number("unweighted_ratio", "equal weights", "{:.2f}".format),
            show_score("unweighted_z", limit),
        )
    caption = (
        f"Within its error of the truth (|z| ≤ {limit:.2f}): by example {example}, by row {row} of"
        f" {rows['redrawn'].notna().sum()} layers. A true form is so in all at once with"
        f" probability {1 - level:g}."
    )
    title = f"Closed forms over the variance of {draws} redrawn minibatches"
    return Table("truth", title, columns, list_rows(found), caption)


def tabulate_estimator(rows: pd.DataFrame, level: float) -> Table:
    """An estimator's closed form over the variance of its own draws, layer by layer."""
    draws, name = int(rows["draws"].max()), rows["estimator"].iloc[0]
    limit = bound(level, rows["z"], draws)
    found = rows.assign(
        error=rows["stderr"] / rows["measured"], ratio=rows["variance"] / rows["measured"]
    )
    columns: tuple[Column, ...] = (
        show_text("layer"),
        show_number("measured", "drawn", "{:.2e}".format),
        show_number("error", "± %", write_percentage),
        show_number("ratio", "closed form", "{:.2f}".format),
        show_score("z", limit),
    )
    within = (rows["z"].abs() <= limit).sum()
    caption = f"Within its error in {within} of {len(rows)} layers: |z| ≤ {limit:.2f}."
    title = f"{name}: closed form over the variance of {draws} draws on one minibatch"
    return Table("estimator", title, columns, list_rows(found), caption)


def show_score(field: str, limit: float) -> Column:
    """A score, with a mark where it is beyond the limit."""

    def show(row: Row) -> str:
        return f"{row[field]:.1f} !" if abs(row[field]) > limit else f"{row[field]:.1f}"

    return Column("z", show)


def write_percentage(value: float) -> str:
    """A relative error in percent."""
    return f"{100 * value:.1f}"
