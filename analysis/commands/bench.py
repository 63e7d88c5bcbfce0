"""sketchvar bench: what things cost, as ratios inside one process."""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from analysis import bench, bench_layer, bench_memory, figures, records
from analysis.commands.run import device


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "bench",
        help="time and peak memory, as ratios inside one process",
        description="Measure time and peak memory side by side in one process and print their ratios.",
    )
    subjects = this.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    probe = subjects.add_parser(
        "probe",
        help="the cost of measuring a training step",
        description="A training step with the probe attached, by row and by example, over the plain step.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    probe.add_argument("--repeats", type=int, default=20, metavar="N", help="interleaved repeats of each step")
    probe.set_defaults(main=main_probe)
    for name, module, about in (
        ("layer", bench_layer, "time of layers that train with an estimator, over nn.Linear"),
        ("memory", bench_memory, "peak memory of training steps of a RoBERTa-base shape, over the plain step"),
    ):
        part = subjects.add_parser(
            name,
            help=about,
            description=f"Measure the {about}.",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        module.add_arguments(part)
        part.add_argument(
            "--out", type=Path, default=Path("runs") / f"bench-{name}", metavar="DIR", help="where to write"
        )
        part.set_defaults(main=main_layer if name == "layer" else main_memory)


def main_probe(arguments: argparse.Namespace) -> None:
    """Print the table of the probe's cost."""
    if arguments.repeats < 3:
        raise ValueError(f"--repeats must be 3 or more for a median, got {arguments.repeats}")
    grid = Table("model", "level", "time", "interquartile", "peak memory", title="Ratio to the plain training step")
    for cost in bench.probe(arguments.repeats):
        interval = f"{cost.low:.3f}–{cost.high:.3f}"
        grid.add_row(cost.model, cost.level, f"{cost.time:.3f}", interval, f"{cost.memory:.3f}")
    Console().print(grid)


def main_layer(arguments: argparse.Namespace) -> None:
    """Measure layers; write and print the rows, draw the figure."""
    a = arguments
    rows = bench_layer.layer(a.estimators, a.rates, repeats=a.repeats, device=device(a.device))
    show(rows, bench_layer.figure(rows), arguments.out, "layer")


def main_memory(arguments: argparse.Namespace) -> None:
    """Measure training steps; write and print the rows, draw the figure."""
    a = arguments
    rows = bench_memory.memory(a.estimators, a.rates, a.layers, a.batch, a.length, device(a.device))
    show(rows, bench_memory.figure(rows), arguments.out, "memory")


def show(rows: pd.DataFrame, figure: Figure, out: Path, name: str) -> None:
    """Print the rows and write them, with the figure, into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    records.write_rows(out / f"{name}.parquet", rows)
    print(rows.to_string(index=False, float_format="{:.3f}".format))
    print(f"\n{out / f'{name}.parquet'}\n{figures.save(figure, out / name)[0]}")
