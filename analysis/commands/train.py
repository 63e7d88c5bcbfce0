"""sketchvar train: train with every estimator, rate and seed beside the baselines; write rows, a
table and figures.
"""

import argparse
from datetime import datetime
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from sketchvar.analysis import records
from sketchvar.analysis import style as figures
from sketchvar.analysis.commands import Help
from sketchvar.analysis.commands.run import add_task, device, options_of
from sketchvar.analysis.sweep import figures as training_figures
from sketchvar.analysis.sweep.grid import Grid
from sketchvar.analysis.sweep.outcome import summarize
from sketchvar.analysis.sweep.prediction import predict
from sketchvar.analysis.sweep.run import BACKENDS, Sweep, sweep
from sketchvar.analysis.tasks import find_task

ESTIMATORS = ["gaussian", "countsketch", "centered(countsketch)", "uniform-rows", "rounding:2"]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "train",
        help=(
            "train with every estimator, rate and seed beside the baselines, and compare what came"
            " of it"
        ),
        description=(
            "Train a task with its linear layers under every estimator, rate and seed, beside exact"
            " training, exact training on the smaller batch that needs as much activation memory,"
            " and activation checkpointing. Every finished run is a file: the same command goes on"
            " where it was stopped."
        ),
        formatter_class=Help,
    )
    add_options(this)
    this.set_defaults(main=main)


def add_options(this: argparse.ArgumentParser) -> None:
    """The options of a sweep, for every command that trains one."""
    add_task(this, default="stdlib-lm")
    this.add_argument(
        "--estimators",
        nargs="*",
        default=ESTIMATORS,
        metavar="E",
        help="as in gaussian or rounding:2",
    )
    this.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[0.5, 0.1],
        metavar="R",
        help="fractions of X to keep",
    )
    this.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        metavar="S",
        help="three or more for intervals",
    )
    this.add_argument(
        "--steps",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="updates (default: the task's)",
    )
    this.add_argument(
        "--evaluations",
        type=int,
        default=10,
        metavar="N",
        help="validations, evenly through training",
    )
    this.add_argument(
        "--fractions",
        type=float,
        nargs="*",
        default=[0.5, 0.25, 0.125, 0.0625],
        metavar="F",
        help="train exactly on these fractions of the batch too: what the prediction is tested by",
    )
    this.add_argument(
        "--layers", default="*", metavar="P", help="pattern of the layers that are sketched"
    )
    this.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    this.add_argument(
        "--threads", type=int, default=1, metavar="N", help="torch's threads in each run"
    )
    this.add_argument(
        "--backend", default="processes", metavar="B", help=f"one of {', '.join(BACKENDS)}"
    )
    this.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    this.add_argument("--retry", action="store_true", help="train the cells that failed again")
    this.add_argument(
        "--out",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="(default: runs/train-<time>)",
    )


def main(arguments: argparse.Namespace) -> None:
    """Train what is left of the grid, then print and write what came of it."""
    grid, folder = grid_of(arguments), folder_of(arguments, "train")
    rows, memory = trained(grid, folder, arguments)
    report(rows, memory, folder.path)


def grid_of(arguments: argparse.Namespace) -> Grid:
    """The grid that the options describe. Raises ValueError for what makes no sense, before
    anything is trained.
    """
    a, options = arguments, options_of(arguments)
    if a.jobs < 1 or a.threads < 1:
        raise ValueError(f"--jobs and --threads must be 1 or more, got {a.jobs} and {a.threads}")
    return Grid(
        task=a.task,
        options=options,
        estimators=tuple(a.estimators),
        rates=tuple(a.rates),
        seeds=tuple(a.seeds),
        steps=getattr(a, "steps", None) or find_task(a.task, options).steps,
        evaluations=a.evaluations,
        fractions=tuple(a.fractions),
        layers=a.layers,
        device=device(a.device),
        threads=a.threads,
    )


def folder_of(arguments: argparse.Namespace, command: str) -> Sweep:
    """--out, or a new folder."""
    return Sweep(
        getattr(arguments, "out", None)
        or Path("runs") / f"{command}-{datetime.now():%Y-%m-%dT%H-%M-%S}"
    )


def trained(
    grid: Grid, folder: Sweep, arguments: argparse.Namespace
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the grid's finished cells, and what its estimators leave for backward; says which
    cells failed.
    """
    a, console = arguments, Console(stderr=True)
    folder.open()
    memory = folder.activations(grid)
    cells = grid.cells(memory)
    folder.describe(grid)
    console.print(
        f"{len(cells)} runs of {grid.steps} steps on {grid.device}; finished ones go to"
        f" {folder.cells}"
    )
    columns = (
        TextColumn("run"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console) as bar:
            shown = bar.add_task("train", total=len(cells), completed=folder.finished(cells))
            rows = sweep(
                cells, folder, a.jobs, a.backend, a.retry,
                lambda done, total: bar.update(shown, completed=done),
            )  # fmt: skip
    except KeyboardInterrupt:
        again = f"the same options and --out {folder.path}"
        raise ValueError(f"interrupted; finished runs are kept, go on with {again}") from None
    for name, error in folder.errors(cells).items():
        console.print(
            f"failed: {name}: {error}; give --retry to train it again", soft_wrap=True, markup=False
        )
    if rows.empty:
        raise ValueError(f"no run finished; their errors are in {folder.failed}")
    return rows, memory


def report(rows: pd.DataFrame, memory: pd.DataFrame, out: Path) -> None:
    """Print what came of the runs, and write it with its figures."""
    table, console = summarize(rows, memory), Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file or a pipe has no width of its own
    records.write_rows(out / "rows.parquet", rows)
    records.write_rows(out / "summary.parquet", table)
    grid = Table(
        title=f"{rows['task'].iloc[0]}: after {rows['step'].max()} steps, mean ± 95 % over seeds"
    )
    for name in (
        "run",
        "seeds",
        "metric",
        "− exact",
        "loss",
        "− exact",
        "− smaller batch",
        "ratio",
        "time",
        "peak",
    ):
        grid.add_column(name, justify="left" if name == "run" else "right", no_wrap=name == "run")
    for _, line in table.iterrows():
        cells = [
            spread(line, value)
            for value in ("metric", "metric_exact", "validation", "validation_exact")
        ]
        smaller = spread(line, "validation_smaller")
        if pd.notna(line["same_memory_batch"]) and smaller:
            smaller += f" (batch {line['same_memory_batch']:.0f})"
        costs = [f"{line[value]:.3g}" for value in ("ratio", "seconds", "peak")]
        grid.add_row(label(line), f"{line['seeds']}", *cells, smaller, *costs)
    console.print(grid)
    if len(set(rows[rows["estimator"] == "exact"]["batch"])) > 1:
        guesses = predict(rows)
        records.write_rows(out / "predictions.parquet", guesses)
        prophecy = Table(
            title=(
                "Final validation loss, predicted from exact training on 1 / (1 + ratio) of the"
                " batch"
            )
        )
        for name in ("run", "effective batch", "predicted", "observed", "observed − predicted"):
            prophecy.add_column(
                name, justify="left" if name == "run" else "right", no_wrap=name == "run"
            )
        for _, line in guesses.iterrows():
            batch = f"{line['effective_batch']:.3g}" + (
                "" if line["inside"] else " (none so small)"
            )
            values = [spread(line, value) for value in ("predicted", "observed", "error")]
            prophecy.add_row(label(line), batch, *values)
        console.print(prophecy)
    mpl.use("agg")
    console.print("\nFigures (PNG, and PDF beside each):")
    for name, figure in training_figures.of_sweep(rows, table).items():
        console.print(f"  {figures.save(figure, out / name)[0]}", soft_wrap=True)


def label(line: pd.Series) -> str:
    """What a run is called."""
    if line["estimator"] != "exact":
        return (
            f"{line['estimator']} {line['rate']:g}" if line["rate"] < 1 else str(line["estimator"])
        )
    return f"exact, batch {line['batch']}" + (", checkpointing" if line["checkpointing"] else "")


def spread(line: pd.Series, value: str) -> str:
    """A mean with its interval, or nothing where there is none."""
    if pd.isna(line[value]):
        return ""
    if pd.isna(line[f"{value}_low"]):
        return f"{line[value]:.3f}"
    return f"{line[value]:.3f} ± {line[f'{value}_high'] - line[value]:.3f}"
