"""What trained runs say: final values with intervals over seeds, beside exact training and a
smaller batch, and the prediction.
"""

from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import (
    NONE,
    Column,
    Row,
    Table,
    list_rows,
    show_interval,
    show_number,
    write_whole,
)

WORDS = {
    "− exact": "less the same of exact training with the same seed; a mean with its 95 % interval",
    "− smaller batch": (
        "the loss less that of exact training on the batch that leaves as many bytes for backward"
    ),
    "ratio": (
        "estimator variance / minibatch variance (unit: example), all layers together, mean over"
        " training"
    ),
    "time, peak": "seconds of the updates and most bytes held in one, over those of exact training",
}
FEW = {
    1: "One seed: nothing says how much chance has to do with it; give three or more.",
    2: (
        "Two seeds: an interval of one degree of freedom, wide or by chance narrow, says little;"
        " give three or more."
    ),
}


def read(folder: Path, rate: float | None = None) -> Contents:
    """All of a sweep's folder; it shows every rate, whatever ``rate``."""
    rows = records.read_rows(folder / "rows.parquet")
    table = records.read_rows(folder / "summary.parquet")
    tables = [tabulate_methods(rows, table)]
    if (folder / "predictions.parquet").exists():
        tables.append(tabulate_predictions(records.read_rows(folder / "predictions.parquet")))
    about = records.read_json(folder / "sweep.json") if (folder / "sweep.json").exists() else {}
    seeds = int(table["seeds"].max())
    return Contents(
        title=f"training {rows['task'].iloc[0]}",
        tables=tuple(tables),
        pictures=list_pictures(rows, table),
        sentences=(FEW[seeds],) if seeds in FEW else (),
        words=WORDS,
        provenance=about,
    )


def list_pictures(rows: pd.DataFrame, table: pd.DataFrame) -> tuple[Picture, ...]:
    """Every figure of a sweep."""
    from sketchvar.analysis.sweep import figures

    task = rows["task"].iloc[0]
    return (
        Picture(
            "curves",
            f"{task}: validation loss through training, mean and range over seeds",
            lambda: figures.validation_curves(rows),
        ),
        Picture(
            "ratio",
            f"{task}: ratio of all layers together through training",
            lambda: figures.total_ratio(rows),
        ),
        Picture(
            "final",
            f"{task}: final validation loss less that of exact training, 95 % over paired seeds",
            lambda: figures.final_losses(table),
        ),
    )


def tabulate_methods(rows: pd.DataFrame, table: pd.DataFrame) -> Table:
    """One line per method."""
    whole = int(rows["batch"].max())
    smaller = show_interval("validation_smaller", "− smaller batch")

    def show_smaller(row: Row) -> str:
        batch = row["same_memory_batch"]
        if batch is None or batch != batch:
            return NONE
        if batch == whole:
            return "saves nothing"
        return f"{smaller.show(row)} (batch {batch:.0f})"

    columns = (
        Column("run", name_run, text=True),
        show_number("seeds", None, write_whole),
        show_interval("metric", "metric"),
        show_interval("metric_exact", "− exact"),
        show_interval("validation", "loss"),
        show_interval("validation_exact", "− exact"),
        Column(smaller.title, show_smaller),
        show_number("ratio"),
        show_number("seconds", "time"),
        show_number("peak"),
    )
    title = (
        f"{rows['task'].iloc[0]}: after {rows['step'].max()} steps, mean ± 95 % over seeds;"
        " time and peak over those of exact training"
    )
    return Table("summary", title, columns, list_rows(table))


def tabulate_predictions(table: pd.DataFrame) -> Table:
    """The prediction of every method beside what came."""

    def show_batch(row: Row) -> str:
        return f"{row['effective_batch']:.3g}" + ("" if row["inside"] else " (none so small)")

    columns = (
        Column("run", name_run, text=True),
        Column("effective batch", show_batch),
        show_interval("predicted", "predicted"),
        show_interval("observed", "observed"),
        show_interval("error", "observed − predicted"),
    )
    title = "Final validation loss, predicted from exact training on 1 / (1 + ratio) of the batch"
    return Table("predictions", title, columns, list_rows(table))


def name_run(row: Row) -> str:
    """What a run is called."""
    if row["estimator"] != "exact":
        return f"{row['estimator']} {row['rate']:g}" if row["rate"] < 1 else str(row["estimator"])
    again = ", checkpointing" if row["checkpointing"] else ""
    return f"exact, batch {row['batch']}{again}"
