"""sketchvar truth: redraw minibatches and say, layer by layer, whether the closed forms of their
variance are true.
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
from sketchvar.analysis.tasks import find_task
from sketchvar.analysis.truth.figure import closed_forms_and_truth
from sketchvar.analysis.truth.redraws import Redraws, run
from sketchvar.analysis.truth.rows import bound


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "truth",
        help=(
            "check the closed forms of the minibatch variance against minibatches actually redrawn"
        ),
        description=(
            "Train a task for some steps, freeze the weights and draw many minibatches. Prints,"
            " layer by layer, the sample variance of the gradient, and how far the closed forms by"
            " row and by example are from it. Writes truth.parquet (as it goes), run.json and a"
            " figure."
        ),
        formatter_class=Help,
    )
    add_task(this, default="stdlib-lm")
    this.add_argument(
        "--steps", type=int, metavar="N", help="updates before freezing (default: the task's own)"
    )
    this.add_argument(
        "--draws",
        type=int,
        default=400,
        metavar="N",
        help="minibatches to redraw; as many again go to the closed forms",
    )
    this.add_argument(
        "--level",
        type=float,
        default=0.01,
        metavar="L",
        help="joint level: how often true forms may be called wrong",
    )
    this.add_argument(
        "--estimator",
        metavar="E",
        help=(
            "also set this estimator's closed form beside its own draws on one batch, as in"
            " countsketch:0.1"
        ),
    )
    this.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    this.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="seed of the model, its training and the draws",
    )
    this.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: runs/truth-<task>-<time>)"
    )
    this.add_argument(
        "--resume",
        action="store_true",
        help="go on with the stopped run in --out; print a finished one again",
    )
    this.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> None:
    """Train, freeze, redraw; print and draw."""
    a = arguments
    if a.resume and a.out is None:
        raise ValueError("--resume needs --out, the folder of the run to go on with")
    if not 0 < a.level < 1:
        raise ValueError(f"--level must lie between 0 and 1, got {a.level:g}")
    options = options_of(a)
    steps = find_task(a.task, options).steps if a.steps is None else a.steps
    redraws = Redraws(a.task, steps, a.draws, a.estimator, device(a.device), a.seed, options)
    out = (
        a.out
        or Path("runs") / f"truth-{a.task.replace('/', '-')}-{datetime.now():%Y-%m-%dT%H-%M-%S}"
    )
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn())
    try:
        with Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)
        ) as bar:
            totals = {"train": steps, "draw": 2 * a.draws}
            shown = {stage: bar.add_task(stage, total=total) for stage, total in totals.items()}
            run(
                redraws, out, a.resume, lambda stage, done: bar.update(shown[stage], completed=done)
            )
    except KeyboardInterrupt:
        raise ValueError(
            f"interrupted; what was measured is kept, go on with --out {out} --resume"
        ) from None
    console = Console() if Console().is_terminal else Console(width=120)
    rows = records.read_rows(out / "truth.parquet")
    console.print(truth_table(rows, a.level))
    console.print(verdict(rows, a.level))
    if a.estimator is not None:
        console.print(estimator_table(records.read_rows(out / "estimator.parquet"), a.level))
    mpl.use("agg")
    figure = closed_forms_and_truth(rows)
    console.print(
        f"\n{out / 'truth.parquet'}\n{figures.save(figure, out / 'truth')[0]}", soft_wrap=True
    )


def truth_table(rows: pd.DataFrame, level: float) -> Table:
    """Both closed forms over the redrawn variance, layer by layer, and whether they lie within
    their error of it.
    """
    draws = int(rows["draws"].max())
    limit = bound(level, rows["example_z"], draws)
    grid = Table(title=f"Closed forms over the variance of {draws} redrawn minibatches")
    for title in ("layer", "redrawn", "± %", "by example", "z", "by row", "z"):
        grid.add_column(title, justify="left" if title == "layer" else "right", no_wrap=True)
    for _, line in rows.iterrows():
        cells = [
            line.layer,
            f"{line.redrawn:.2e}",
            f"{100 * line.redrawn_stderr / line.redrawn:.1f}",
        ]
        for closed, z in ((line.example, line.example_z), (line.row, line.row_z)):
            cells += [f"{closed / line.redrawn:.2f}", marked(z, limit)]
        grid.add_row(*cells)
    return grid


def verdict(rows: pd.DataFrame, level: float) -> str:
    """In how many layers each form lies within its error, at which joint level."""
    limit = bound(level, rows["example_z"], int(rows["draws"].max()))
    example, row = (int((rows[f"{form}_z"].abs() <= limit).sum()) for form in ("example", "row"))
    return (
        f"Within its error of the truth (|z| ≤ {limit:.2f}): by example {example}, by row {row} of"
        f" {rows['redrawn'].notna().sum()} layers. A true form is so in all at once with"
        f" probability {1 - level:g}."
    )


def estimator_table(rows: pd.DataFrame, level: float) -> Table:
    """An estimator's closed form over the variance of its own draws, layer by layer."""
    draws = int(rows["draws"].max())
    limit = bound(level, rows["z"], draws)
    grid = Table(
        title=(
            f"{rows['estimator'].iloc[0]}: closed form over the variance of {draws} draws on one"
            " minibatch"
        )
    )
    for title in ("layer", "drawn", "± %", "closed form", "z"):
        grid.add_column(title, justify="left" if title == "layer" else "right", no_wrap=True)
    for _, line in rows.iterrows():
        spread = f"{100 * line.stderr / line.measured:.1f}"
        ratio = f"{line.variance / line.measured:.2f}"
        grid.add_row(line.layer, f"{line.measured:.2e}", spread, ratio, marked(line.z, limit))
    grid.caption = (
        f"Within its error in {(rows['z'].abs() <= limit).sum()} of {len(rows)} layers: |z| ≤"
        f" {limit:.2f}"
    )
    return grid


def marked(z: float, limit: float) -> str:
    """z, with a mark where it is beyond the limit."""
    return f"[bold]{z:.1f} ![/]" if abs(z) > limit else f"{z:.1f}"
