"""What the GPU suite says: which parts were measured, and the numbers that were set for a GPU."""

from functools import partial
from pathlib import Path

from sketchvar.analysis import records
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import (
    Table,
    list_rows,
    show_number,
    show_text,
    write_fixed,
    write_whole,
)


def read(folder: Path, rate: float | None = None) -> Contents:
    """All of a suite's folder; its parts' own files say the rest."""
    from sketchvar.analysis.gpu.suite import list_numbers

    about = records.read_json(folder / "suite.json")
    parts = tuple(
        {**part, "skipped": "; ".join(part["skipped"])} for part in about["parts"].values()
    )
    columns = (
        show_text("part"),
        show_number("rows", None, write_whole),
        show_number("seconds", None, write_whole),
        show_text("state"),
        show_text("skipped", "left out"),
    )
    tables = [Table("parts", f"GPU suite on {about['hardware']}", columns, parts)]
    if about["device"] != "cpu":  # on a CPU it is a test of the suite, at toy size
        bounds = (
            show_text("number"),
            show_text("bound"),
            show_number("measured", None, write_fixed),
        )
        tables.append(
            Table("numbers", "What was set for a GPU", bounds, list_rows(list_numbers(folder)))
        )
    return Contents(
        title=f"GPU suite on {about['hardware']}",
        tables=tuple(tables),
        pictures=list_pictures(folder),
        provenance={name: value for name, value in about.items() if name != "parts"},
    )


def list_pictures(folder: Path) -> tuple[Picture, ...]:
    """Every figure that the folder has rows for."""
    from sketchvar.analysis.bench.figures import layer_times
    from sketchvar.analysis.gpu import figures

    found: list[Picture] = []
    if (folder / "layers.parquet").exists():
        rows = records.read_rows(folder / "layers.parquet")
        for dtype, part in rows.groupby("dtype", sort=False):
            for i, group in enumerate(figures.split_by_model(part), start=1):
                caption = f"Time of layers in {dtype} over nn.Linear's"
                found.append(Picture(f"layers_{dtype}_{i}", caption, partial(layer_times, group)))
    for name, file, draw, caption in (
        ("throughput", "memory", figures.throughput, "Examples a second against peak memory"),
        (
            "kernels",
            "kernels",
            figures.kernels,
            "How near each kernel comes to the hardware's limit",
        ),
    ):
        if (folder / f"{file}.parquet").exists():
            rows = records.read_rows(folder / f"{file}.parquet")
            found.append(Picture(name, caption, partial(draw, rows)))
    return tuple(found)
