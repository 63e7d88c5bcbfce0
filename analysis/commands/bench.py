"""sketchvar bench: what things cost, as ratios inside one process."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from sketchvar.analysis import records
from sketchvar.analysis import style as figures
from sketchvar.analysis.bench import layer as bench_layer
from sketchvar.analysis.bench import memory as bench_memory
from sketchvar.analysis.bench import probe as bench
from sketchvar.analysis.bench.figures import layer_times, peak_memory
from sketchvar.analysis.commands import Help
from sketchvar.analysis.commands.run import device


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "bench",
        help="time and peak memory, as ratios inside one process",
        description=(
            "Measure time and peak memory side by side in one process and print their ratios."
        ),
    )
    subjects = this.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    probe = subjects.add_parser(
        "probe",
        help="the cost of measuring a training step",
        description=(
            "A training step with the probe attached, by row and by example, over the plain step."
        ),
        formatter_class=Help,
    )
    probe.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="so many times ten steps of each loop"
    )
    probe.set_defaults(main=main_probe)
    for name, module, about in (
        ("layer", bench_layer, "time of layers that train with an estimator, over nn.Linear"),
        (
            "memory",
            bench_memory,
            "peak memory of training steps of a RoBERTa-base shape, over the plain step",
        ),
    ):
        part = subjects.add_parser(
            name,
            help=about,
            description=f"Measure the {about}.",
            formatter_class=Help,
        )
        module.add_arguments(part)
        part.add_argument(
            "--out",
            type=Path,
            default=Path("runs") / f"bench-{name}",
            metavar="DIR",
            help="where to write",
        )
        part.set_defaults(main=main_layer if name == "layer" else main_memory)


def main_probe(arguments: argparse.Namespace) -> None:
    """Print the table of the probe's cost."""
    if arguments.repeats < 3:
        raise ValueError(f"--repeats must be 3 or more for a median, got {arguments.repeats}")
    title = "Ratio to the plain training step"
    grid = Table("model", "level", "every", "time", "interquartile", "peak memory", title=title)
    *_, rows = bench.time_probes(arguments.repeats)
    for cost in rows.itertuples():
        interval = f"{cost.low:.3f}–{cost.high:.3f}"
        grid.add_row(
            cost.model,
            cost.level,
            str(cost.every),
            f"{cost.time:.3f}",
            interval,
            f"{cost.memory:.3f}",
        )
    Console().print(grid)


def main_layer(arguments: argparse.Namespace) -> None:
    """Measure layers; print a table, write the rows as they come, draw the figure."""
    a = arguments
    rows = recorded(
        bench_layer.time_layers(a.estimators, a.rates, a.shapes, a.repeats, device(a.device)),
        a.out,
        "layer",
    )
    grid = Table(
        "estimator",
        "rate",
        title=f"Time over nn.Linear, {rows['device'][0]}, {rows['threads'][0]} threads",
    )
    shapes = list(dict.fromkeys(zip(rows["rows"], rows["p"], rows["q"], strict=True)))
    for shape in shapes:
        grid.add_column("{} × {} → {}".format(*shape), justify="right")
    grid.add_column("theory", justify="right")
    for (mode, name, rate), part in rows.groupby(["mode", "estimator", "rate"], sort=False):
        label = str(name) if mode == "train" else f"{name}, {mode}"
        grid.add_row(
            label,
            f"{rate:g}",
            *(f"{r:.3f}" for r in part["ratio"]),
            f"{part['theory'].iloc[0]:.3f}",
        )
    show(grid, layer_times(rows), arguments.out / "layer")


def main_memory(arguments: argparse.Namespace) -> None:
    """Measure training steps; print a table, write the rows as they come, draw the figure."""
    a = arguments
    table = bench_memory.measure_memory(
        a.estimators, a.rates, a.layers, a.batch, a.length, device(a.device)
    )
    rows = recorded(table, a.out, "memory")
    grid = Table("batch", "estimator", "rate", "recomputed", title="Peak memory of a training step")
    grid.columns[1].no_wrap = True
    for column in ("peak, GB", "/ plain", "theory", "saved, GB"):
        grid.add_column(column, justify="right")
    for r in rows.to_dict("records"):
        numbers = [f"{r['peak'] / 1e9:.2f}", f"{r['ratio']:.3f}"]
        numbers += (
            ["", ""] if r["checkpointing"] else [f"{r['theory']:.3f}", f"{r['saved'] / 1e9:.2f}"]
        )
        words = (
            str(r["batch"]),
            r["estimator"],
            f"{r['rate']:g}",
            "yes" if r["checkpointing"] else "no",
        )
        grid.add_row(*words, *numbers)
    kept = rows[~rows["checkpointing"]]
    account = Table(
        "batch", "estimator", "rate", "held for backward by, %", title="What else holds memory"
    )
    for r in kept.to_dict("records"):
        shares = {
            name: round(100 * held / r["saved"]) for name, held in json.loads(r["account"]).items()
        }
        listed = ", ".join(f"{name} {share}" for name, share in shares.items() if share)
        account.add_row(str(r["batch"]), r["estimator"], f"{r['rate']:g}", listed)
    Console().print(account)
    show(grid, peak_memory(rows), arguments.out / "memory")


def recorded(tables: Iterator[pd.DataFrame], out: Path, name: str) -> pd.DataFrame:
    """The last of tables that grow; each is written to ``out`` when it comes, with provenance
    before the first.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame()
    for rows in tables:
        if len(rows) == 1:
            records.write_json(
                out / "run.json", records.provenance(torch.device(rows["device"][0]))
            )
        records.write_rows(out / f"{name}.parquet", rows)
    return rows


def show(grid: Table, figure: Figure, path: Path) -> None:
    """Print the table, save the figure, and say where both are."""
    console = Console()
    console.print(grid)
    console.print(f"\n{path}.parquet\n{figures.save(figure, path)[0]}", soft_wrap=True)
