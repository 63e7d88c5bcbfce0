"""What trained runs say: final values with intervals over seeds, beside exact training and a
smaller batch, and the prediction.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
    write_fixed,
    write_percent,
    write_short,
    write_whole,
)
from sketchvar.analysis.report.verdict_training import judge_training, name_run

WORDS = {
    "− exact": (
        "less the same of exact training; a mean with its 95 % interval, whose residual is pooled"
        " over methods and seeds"
    ),
    "− same bytes, same peak": (
        "the loss less that of exact training on the smaller batch that leaves as many bytes for"
        " backward, or that has the same peak"
    ),
    "− same examples": (
        "the same on the smaller batch of as many bytes, trained for as many examples: with more"
        " updates"
    ),
    "*": "resolved at a joint level of 0.05 over all intervals that are drawn here (Holm)",
    "× rate": (
        "learning rate over the task's: of each seed the one that is best over the method's other"
        " seeds, so that no loss shown here had a say in its rate; their mean"
    ),
    "slowdown": (
        "updates, over those in which exact training comes to the same loss, with what the loss's"
        " interval allows; at least 1, as exact training was not trained for longer"
    ),
    "ratio": (
        "estimator variance / minibatch variance (unit: example), all layers together, mean over"
        " training"
    ),
    "bytes held": (
        "what a forward pass leaves for backward, also in what is no linear layer, as measured"
        " before training"
    ),
    "peak": "most bytes held in an update",
    "time": "seconds of the updates",
}
FEW = {
    1: "One seed: nothing says how much chance has to do with it; give three or more.",
    2: (
        "Two seeds: an interval of one degree of freedom, wide or by chance narrow, says little;"
        " give three or more."
    ),
}
HELD = (
    show_number("held", "bytes held", write_whole),
    show_number("held_share", "of exact's", write_percent),
)
MEMORY = ["estimator", "rate", "activations", "exact"]
FORMATS = ("nvfp4", "mxfp4", "fp8")  # as estimators are named


def read(folder: Path, rate: float | None = None) -> Contents:
    """All of a sweep's folder; it shows every rate, whatever ``rate``."""
    rows, table, told, recorded, tuned = load(folder)
    tables = [tabulate_methods(rows, table, tuned), tabulate_prices(table)]
    if told is not None:
        tables.append(tabulate_predictions(told))
    about = records.read_json(folder / "sweep.json") if (folder / "sweep.json").exists() else {}
    return Contents(
        title=f"training {rows['task'].iloc[0]}",
        tables=tuple(tables),
        pictures=list_pictures(rows, table),
        sentences=list_sentences(table, about.get("left_out", ())),
        words=WORDS,
        provenance=about,
        verdict=judge_training(
            rows, table, told, find_caution(recorded, about), name_metric(rows["task"].iloc[0])
        ),
    )


class Loaded(NamedTuple):
    """The rows of a sweep, its summary with pooled intervals and the bytes held, the predictions,
    if any, the summary as it was recorded, and whether there were several learning rates, of which
    the rows are those of each method's best.
    """

    rows: pd.DataFrame
    table: pd.DataFrame
    told: pd.DataFrame | None
    recorded: pd.DataFrame
    tuned: bool


def load(folder: Path) -> Loaded:
    """Load the files of a sweep, every method at its own best learning rate if it has several."""
    from sketchvar.analysis.sweep.outcome import is_longer, summarize
    from sketchvar.analysis.sweep.prediction import predict
    from sketchvar.analysis.sweep.tuned import at_best_rates

    every = records.read_rows(folder / "rows.parquet")
    rows = at_best_rates(every)
    tuned = len(rows) < len(every)
    recorded = table = records.read_rows(folder / "summary.parquet")
    file = folder / "predictions.parquet"
    told = records.read_rows(file) if file.exists() else None
    if "drawn" not in table:  # of before intervals were pooled
        table = summarize(rows, table)
        told = None if told is None else predict(rows)
    rows = rows[~is_longer(rows)]
    return Loaded(rows, add_held(table, folder), told, recorded, tuned)


def add_held(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Add the bytes that a forward pass leaves for backward, and their share of exact training's,
    from the files that say it; NaN where none does.
    """
    parts = [records.read_rows(file) for file in sorted(folder.glob("memory-*.parquet"))]
    memory = pd.concat(parts) if parts else pd.DataFrame(columns=MEMORY)
    names = zip(memory["estimator"], memory["rate"], strict=True)
    held = dict(zip(names, memory["activations"], strict=True))
    whole = memory["exact"].max()
    held["exact", table["batch"].max()] = whole

    def find(line: pd.Series) -> float:
        if line["checkpointing"]:
            return held.get(("checkpointing", 1.0), math.nan)
        exact = line["estimator"] == "exact"
        return held.get((line["estimator"], line["batch" if exact else "rate"]), math.nan)

    found = table.apply(find, axis=1).astype(float)
    return table.assign(held=found, held_share=found / whole)


def name_metric(task: str) -> str:
    """What the metric of a task is called, where it is one of ours."""
    from sketchvar.analysis.tasks import TASKS

    return TASKS[task].metric if task in TASKS else ""


def find_caution(table: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """Why the batch of as many held bytes is not that: versions that did not know the peak's
    measured bytes in float32, whatever the precision of training.
    """
    options = dict(about.get("grid", {}).get("options", ()))
    precision = options.get("precision", "float32")
    if "same_peak_batch" in table or precision == "float32":
        return ""
    batches = sorted({int(b) for b in table["same_memory_batch"].dropna()}, reverse=True)
    return (
        f"The batches of as many held bytes ({', '.join(map(str, batches))}) are too large: bytes"
        f" were measured in float32, training ran in {precision}"
    )


def list_sentences(table: pd.DataFrame, left_out: Sequence[str]) -> tuple[str, ...]:
    """What has to be said of a summary beside its table."""
    seeds, said = int(table["seeds"].max()), []
    if seeds in FEW:
        said.append(FEW[seeds])
    line = table.iloc[0]
    if line["detectable"] == line["detectable"]:
        said.append(
            f"With power 0.8 these {seeds} seeds would have shown a difference in loss of"
            f" {write_fixed(line['detectable'])} if it was the only one, and of"
            f" {write_fixed(line['detectable_drawn'])} among the {line['drawn']} intervals drawn"
            " here; what is smaller cannot be told from nothing."
        )
    if left_out:
        said.append(
            "Left exact, as they see one row of each example where other layers see several:"
            f" {', '.join(left_out)}; --layers '*' sketches them too."
        )
    if table["estimator"].str.startswith(FORMATS).any():
        said.append(
            "Formats of few bits are emulated: their values in the arithmetic of the task, in the"
            " weight gradients of the layers alone; so time and peak are not such hardware's."
        )
    return tuple(said)


def list_pictures(rows: pd.DataFrame, table: pd.DataFrame) -> tuple[Picture, ...]:
    """Every figure of a sweep."""
    from sketchvar.analysis.sweep import figures

    task = rows["task"].iloc[0]
    found = [
        Picture(
            "curves",
            f"{task}: validation loss through training, mean and range over seeds",
            partial(figures.validation_curves, rows),
        ),
        Picture(
            "ratio",
            f"{task}: ratio of all layers together through training",
            partial(figures.total_ratio, rows),
        ),
        Picture(
            "final",
            f"{task}: final validation loss less that of exact training, pooled 95 % intervals",
            partial(figures.final_losses, table),
        ),
    ]
    known = {
        "curves": rows.loc[rows["step"] > rows["step"].min(), "validation"].notna().any(),
        "ratio": rows.loc[rows["estimator"] != "exact", "ratio"].notna().any(),
        "final": len(figures.select_drawn(table)) > 0,
    }
    return tuple(each for each in found if known[each.name])


def tabulate_methods(rows: pd.DataFrame, table: pd.DataFrame, tuned: bool = False) -> Table:
    """One line per method, with the learning rate that it has where it had several."""
    whole = int(rows["batch"].max())
    columns = (
        Column("run", name_run, text=True),
        show_number("seeds", None, write_whole),
        *([show_number("factor", "× rate", write_short)] if tuned else []),
        show_interval("metric", "metric"),
        show_difference("metric_exact", "− exact"),
        show_interval("validation", "loss"),
        show_difference("validation_exact", "− exact"),
        show_partner("validation_smaller", "− same bytes", "same_memory_batch", whole),
        *(
            [show_partner("validation_examples", "− same examples", "same_memory_batch", whole)]
            if "validation_examples" in table and table["validation_examples"].notna().any()
            else []
        ),
        show_partner("validation_peak", "− same peak", "same_peak_batch", whole),
    )
    title = f"{rows['task'].iloc[0]}: after {rows['step'].max()} steps, mean ± 95 % over seeds"
    return Table("summary", title, columns, list_rows(table))


def tabulate_prices(table: pd.DataFrame) -> Table:
    """How noisy every method is, beside what it keeps and takes."""
    columns = (
        Column("run", name_run, text=True),
        show_number("ratio"),
        *HELD,
        show_number("peak"),
        show_number("seconds", "time"),
        Column("slowdown", show_slowdown),
    )
    title = "Ratio, and bytes held for backward; peak and time over those of exact training"
    return Table("prices", title, columns, list_rows(table))


def show_difference(field: str, title: str) -> Column:
    """A column of differences, with a star where it is resolved."""
    from sketchvar.analysis.sweep.pooled import LEVEL

    plain = show_interval(field, title)

    def show(row: Row) -> str:
        return plain.show(row) + "*" * (row[f"{field}_holm"] < LEVEL)

    return Column(title, show)


def show_partner(field: str, title: str, partner: str, whole: int) -> Column:
    """A column of differences to a smaller batch, which it names."""
    plain = show_difference(field, title)

    def show(row: Row) -> str:
        batch = row[partner]
        if batch is None or batch != batch:
            return NONE
        return "saves nothing" if batch >= whole else f"{plain.show(row)} (batch {batch:.3g})"

    return Column(title, show)


def show_slowdown(row: Row) -> str:
    """The slowdown, and what the interval of the loss allows."""
    middle, low, high = (row[f"slowdown{end}"] for end in ("", "_low", "_high"))
    if middle != middle:
        return NONE
    return f"{middle:.2f}" + (f" [{low:.2f}, {high:.2f}]" if high == high else "")


def tabulate_predictions(table: pd.DataFrame) -> Table:
    """The predictions of every method beside what came: by the ratio, and where they are known by
    the metric ratio and the cost ratio.
    """
    columns = [Column("run", name_run, text=True), show_interval("observed", "observed")]
    for suffix, name in (("", "ratio"), ("_metric", "metric ratio"), ("_cost", "cost ratio")):
        if f"predicted{suffix}" in table:
            of = suffix and f" by {name}"
            columns += [
                show_batch(suffix, f"effective batch{of}"),
                show_interval(f"predicted{suffix}", "predicted"),
                show_interval(f"error{suffix}", "observed − predicted"),
            ]
    title = "Final validation loss, predicted from exact training on 1 / (1 + ratio) of the batch"
    return Table("predictions", title, tuple(columns), list_rows(table))


def show_batch(suffix: str, title: str) -> Column:
    """A column of effective batches, and whether exact training had one so small."""

    def show(row: Row) -> str:
        batch = row[f"effective_batch{suffix}"]
        if batch != batch:
            return NONE
        return f"{batch:.3g}" + ("" if row[f"inside{suffix}"] else " (none so small)")

    return Column(title, show)
