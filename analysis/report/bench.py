"""What benches say: time of layers, peak memory of training, cost of the probe."""

import json
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
    show_number,
    show_text,
    write_fixed,
    write_short,
    write_whole,
)

GIGA, MEGA = 1e9, 1e6


def read_layer(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``bench layer``."""
    from sketchvar.analysis.bench import figures

    rows = records.read_rows(folder / "layer.parquet")
    caption = "Time of forward and backward over nn.Linear's, median and quartiles"
    return Contents(
        title=f"time of layers on {rows['device'].iloc[0]}",
        tables=(tabulate_times(rows), *([tabulate_profiles(rows)] if "passes" in rows else [])),
        pictures=(Picture("layer", caption, partial(figures.layer_times, rows)),),
        provenance=read_provenance(folder),
    )


def tabulate_times(rows: pd.DataFrame) -> Table:
    """Time over nn.Linear by estimator and rate, a column for every shape."""
    lines, shapes = [], []
    for (mode, name, kept), part in rows.groupby(["mode", "estimator", "rate"], sort=False):
        line: dict[str, object] = {
            "estimator": name if mode == "train" else f"{name}, {mode}",
            "rate": kept,
            "theory": part["theory"].iloc[0],
        }
        for row in part.to_dict("records"):
            shape = name_shape(row)
            shapes.append(shape)
            line[shape] = row["ratio"]
        lines.append(line)
    columns = (
        show_text("estimator"),
        show_number("rate", None, write_short),
        *(show_number(shape, None, write_fixed) for shape in dict.fromkeys(shapes)),
        show_number("theory", None, write_fixed),
    )
    where = f"{rows['device'].iloc[0]}, {rows['threads'].iloc[0]} threads"
    return Table("layer", f"Time over nn.Linear, {where}", columns, tuple(lines))


def name_shape(row: Row) -> str:
    """What the shape of a layer is called."""
    shape = f"{row['rows']} × {row['p']} → {row['q']}"
    return f"{shape}, convolution" if row.get("kernel", 1) > 1 else shape


def tabulate_profiles(rows: pd.DataFrame) -> Table:
    """What a step of each layer asks for."""
    train = rows[rows["mode"] == "train"]
    lines = tuple({**row, "shape": name_shape(row)} for row in list_rows(train))
    columns = (
        show_text("estimator"),
        show_number("rate", None, write_short),
        show_text("shape"),
        show_number("kept", None, write_fixed),
        show_number("peak", None, write_fixed),
        show_number("allocated", None, write_fixed),
        show_number("allocations", None, write_whole),
        show_number("passes", None, "{:.1f}".format),
        show_number("numbers", None, write_short),
    )
    title = "A step's memory over the plain one's; requests, passes and random numbers more than it"
    return Table("profile", title, columns, lines)


def read_step(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``bench step``."""
    rows = records.read_rows(folder / "step.parquet")
    return Contents(
        title=f"training steps of {rows['task'].iloc[0]} on {rows['device'].iloc[0]}",
        tables=(tabulate_steps(rows),),
        provenance=read_provenance(folder),
    )


def tabulate_steps(rows: pd.DataFrame) -> Table:
    """Time and memory of training steps over the exact one's."""

    def show_quartiles(row: Row) -> str:
        return f"{row['low']:.3f}–{row['high']:.3f}"

    found = rows.assign(
        peak_ratio=rows["peak"] / rows["plain_peak"],
        saved_ratio=rows["saved"] / rows["plain_saved"],
        spared=(rows["plain_saved"] - rows["saved"]) / MEGA,
        lower=(rows["plain_peak"] - rows["peak"]) / MEGA,
        kept_mb=rows["kept"] / MEGA,
    )
    columns = (
        show_text("estimator"),
        show_number("rate", None, write_short),
        show_number("ratio", "time", write_fixed),
        Column("quartiles", show_quartiles),
        show_number("peak_ratio", "peak", write_fixed),
        show_number("saved_ratio", "held for backward", write_fixed),
        show_number("lower", "peak is lower by, MB", "{:.1f}".format),
        show_number("spared", "held less, MB", "{:.1f}".format),
        show_number("kept_mb", "kept, MB", "{:.1f}".format),
    )
    return Table("step", "Ratio to the exact training step", columns, list_rows(found))


def read_memory(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``bench memory``."""
    from sketchvar.analysis.bench import figures

    rows = records.read_rows(folder / "memory.parquet")
    shape = f" {rows['shape'].iloc[0]}" if "shape" in rows else ""
    tables = [tabulate_peaks(rows)]
    if "account" in rows:
        tables.append(tabulate_accounts(rows[~rows["checkpointing"]]))
    caption = "Peak memory of a training step over the plain step's"
    return Contents(
        title=f"memory of training{shape} on {rows['device'].iloc[0]}",
        tables=tuple(tables),
        pictures=(Picture("memory", caption, partial(figures.peak_memory, rows)),),
        provenance=read_provenance(folder),
    )


def tabulate_peaks(rows: pd.DataFrame) -> Table:
    """Peak memory of a training step, and its time where it was measured."""
    plain = rows[(rows["estimator"] == "plain") & ~rows["checkpointing"]].set_index("batch")
    seconds = rows["seconds"] if "seconds" in rows else pd.Series(float("nan"), rows.index)
    timed = bool(seconds.notna().any())
    found = rows.assign(
        time_ratio=seconds / rows["batch"].map(plain["seconds"]) if timed else seconds,
        peak_gb=rows["peak"] / GIGA,
        saved_gb=rows["saved"] / GIGA,
        recomputed=[name_recomputed(row) for row in list_rows(rows)],
    )
    columns = (
        show_text("estimator"),
        show_number("rate", None, write_short),
        show_number("batch", None, write_whole),
        Column("recom- puted", lambda row: row["recomputed"]),
        show_number("peak_gb", "peak, GB", "{:.2f}".format),
        show_number("ratio", "/ plain", write_fixed),
        show_number("theory", None, write_fixed),
        show_number("saved_gb", "saved, GB", "{:.2f}".format),
        *([show_number("time_ratio", "time / plain", write_fixed)] if timed else []),
    )
    return Table("memory", "Peak memory of a training step", columns, list_rows(found))


def name_recomputed(row: Row) -> str:
    """What of a training step's activations is computed again."""
    return ("but products" if row.get("selective") else "yes") if row["checkpointing"] else "no"


def tabulate_accounts(rows: pd.DataFrame) -> Table:
    """What holds memory for backward, by operation, in percent."""
    lines = []
    for row in list_rows(rows):
        held = json.loads(row["account"])
        shares = {name: size / row["saved"] for name, size in held.items()}
        listed = ", ".join(
            f"{name} {100 * share:.0f}" for name, share in shares.items() if share >= 0.005
        )
        lines.append({**row, "held": listed, "account": held})
    columns = (Column("step", name_step, text=True), show_text("held", "held for backward by, %"))
    return Table("account", "What else holds memory", columns, tuple(lines))


def name_step(row: Row) -> str:
    """What a training step is called."""
    rate = f" {row['rate']:g}" if row["rate"] < 1 else ""
    return f"{row['estimator']}{rate}, batch {row['batch']}"


def read_probe(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``bench probe``."""
    rows = records.read_rows(folder / "probe.parquet")
    return Contents(
        title="cost of the probe",
        tables=(tabulate_costs(rows),),
        provenance=read_provenance(folder),
    )


def tabulate_costs(rows: pd.DataFrame) -> Table:
    """Time and peak memory of a step with the probe, over the plain one."""

    def show_quartiles(row: Row) -> str:
        return f"{row['low']:.3f}–{row['high']:.3f}"

    columns = (
        show_text("model"),
        show_text("level"),
        show_number("every", None, write_whole),
        show_number("time", None, write_fixed),
        Column("quartiles", show_quartiles),
        show_number("memory", "peak memory", write_fixed),
    )
    return Table("probe", "Ratio to the plain training step", columns, list_rows(rows))


def read_throughput(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``paper throughput``."""
    rows = records.read_rows(folder / "rows.parquet")
    columns = (
        show_text("estimator"),
        show_number("rate", None, write_short),
        show_number("ratio", "throughput / plain", write_fixed),
        show_number("low", "lower quartile", write_fixed),
        show_number("high", "upper quartile", write_fixed),
    )
    title = (
        f"Throughput of training {rows['task'].iloc[0]} over the plain step's"
        f" ({rows['plain'].iloc[0]:.3g} examples/s)"
    )
    table = Table("throughput", title, columns, list_rows(rows))
    return Contents("throughput of training", (table,), provenance=read_provenance(folder))


def read_provenance(folder: Path) -> dict[str, object]:
    """What run.json says, where there is one."""
    file = folder / "run.json"
    return records.read_json(file) if file.exists() else {}
