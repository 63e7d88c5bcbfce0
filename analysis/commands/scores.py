"""sketchvar scores: how close layers that predict ‖y‖ come to the oracle that knows it."""

import argparse
from functools import partial
from pathlib import Path

import matplotlib as mpl
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from sketchvar.analysis import records
from sketchvar.analysis import style as figures
from sketchvar.analysis.commands import Help
from sketchvar.analysis.commands.run import add_task, device, options_of
from sketchvar.analysis.scores import scores
from sketchvar.analysis.study import figures as pictures
from sketchvar.analysis.tasks import find_task


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "scores",
        help="how close layers that predict the size of Y's rows come to the oracle that knows it",
        description=(
            "Train a task with every linear layer on ScoredRows, which learns how large the rows of"
            " Y are by position. Then compare, layer by layer and on new minibatches, its variance"
            " with that of uniform rows, of norm-rows (X alone) and of optimal-rows (the oracle)."
        ),
        formatter_class=Help,
    )
    add_task(this, default="stdlib-lm")
    this.add_argument(
        "--steps", type=int, default=100, metavar="N", help="updates before the comparison"
    )
    this.add_argument(
        "--rate", type=float, default=0.1, metavar="R", help="fraction of the rows to keep"
    )
    this.add_argument(
        "--batches", type=int, default=8, metavar="N", help="new minibatches to compare on"
    )
    this.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    this.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="the same seed gives the same rows on a CPU",
    )
    this.add_argument(
        "--out", type=Path, default=Path("runs/scores"), metavar="DIR", help="where to write"
    )
    this.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> None:
    """Train and compare; print a table, write the rows, draw the figure."""
    a = arguments
    options, where = options_of(a), device(a.device)
    task = find_task(a.task, options)
    a.out.mkdir(parents=True, exist_ok=True)
    with Progress(console=Console(stderr=True)) as bar:
        shown = bar.add_task("train", total=a.steps)
        advance = partial(bar.advance, shown)
        rows = scores(task, a.steps, a.rate, a.batches, where, a.seed, lambda step, loss: advance())
    study = {"task": a.task, "options": options, "batches": a.batches, "seed": a.seed}
    records.write_json(
        a.out / "run.json", study | records.provenance(torch.device(where)) | task.provenance()
    )
    records.write_rows(a.out / "scores.parquet", rows)
    ratios = rows.pivot_table(index="layer", columns="estimator", values="ratio", sort=False)
    closed = rows[rows["estimator"] == "scored-rows"].set_index("layer")
    grid = Table(
        title=(
            f"Estimator variance / minibatch variance (by example), rate {a.rate:g}, {a.steps}"
            " steps"
        ),
        caption=(
            "gap closed: the way from norm-rows to the oracle ± standard error over minibatches"
        ),
    )
    grid.add_column("layer", overflow="fold")
    for column in (*ratios.columns, "gap closed"):
        grid.add_column(column, justify="right", min_width=6)
    grid.columns[-1].no_wrap = True
    for layer, line in ratios.iterrows():
        gap = closed.loc[str(layer)]
        grid.add_row(
            str(layer),
            *(f"{r:.2f}" for r in line),
            f"{gap['gap_closed']:.0%} ± {gap['gap_stderr']:.0%}",
        )
    grid.add_section()
    grid.add_row(
        "median", *(f"{r:.2f}" for r in ratios.median()), f"{closed['gap_closed'].median():.0%}"
    )
    console = Console()
    console.print(grid)
    mpl.use("agg")
    picture = figures.save(pictures.ratio_by_layer(rows, a.steps, a.rate), a.out / "scores")[0]
    console.print(f"\n{a.out / 'scores.parquet'}\n{picture}", soft_wrap=True)
