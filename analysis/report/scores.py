"""What predicted scores say: how far each layer's go from norm-rows to the oracle."""

from functools import partial
from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import (
    Column,
    Row,
    Table,
    list_rows,
    name_values,
    show_number,
    show_text,
)

ORACLE = "optimal-rows"
WORDS = {
    "ratio": "estimator variance / minibatch variance (unit: example), on batches unseen",
    "gap closed": "the way from norm-rows to the oracle ± standard error over minibatches",
    "oracle": "told about Y in advance, which no layer can be: a bound, not a choice",
}


def read(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``scores``."""
    from sketchvar.analysis.noise.figures import ratio_by_layer

    rows = records.read_rows(folder / "scores.parquet")
    about = records.read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    step, kept = int(rows["step"].iloc[0]), float(rows["rate"].iloc[0])
    caption = f"Ratio of every layer after {step} steps, rate {kept:g}"
    return Contents(
        title=str(about.get("run", folder.name)),
        tables=(tabulate_gaps(rows, step, kept),),
        pictures=(Picture("scores", caption, partial(ratio_by_layer, rows, kept, step)),),
        words=WORDS,
        provenance=about,
    )


def tabulate_gaps(rows: pd.DataFrame, step: int, rate: float) -> Table:
    """The ratio of every layer and estimator, and how much of the gap the scores close."""
    ratios = rows.pivot_table(index="layer", columns="estimator", values="ratio", sort=False)
    closed = rows[rows["estimator"] == "scored-rows"].set_index("layer")
    gap = closed[["gap_closed", "gap_stderr"]]
    feet: tuple[Row, ...] = (
        {
            "layer": "median",
            **name_values(ratios.median()),
            "gap_closed": gap["gap_closed"].median(),
        },
    )

    def show_gap(row: Row) -> str:
        error = f" ± {row['gap_stderr']:.0%}" if "gap_stderr" in row else ""
        return f"{row['gap_closed']:.0%}{error}"

    columns = (
        show_text("layer"),
        *(
            show_number(name, f"{name} (oracle)" if name == ORACLE else name)
            for name in ratios.columns
        ),
        Column("gap closed", show_gap),
    )
    return Table(
        "scores",
        f"Estimator variance / minibatch variance (by example), rate {rate:g}, {step} steps",
        columns,
        list_rows(ratios.join(gap).reset_index()),
        "gap closed: the way from norm-rows to the oracle ± standard error over minibatches",
        feet=feet,
    )
