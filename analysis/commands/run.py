"""sketchvar run: train a task, measure, write rows, figures and a table."""

import argparse
from datetime import datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sketchvar.analysis.commands import Help, figures
from sketchvar.analysis.study.study import Study, run
from sketchvar.analysis.tasks import TASKS, Options, find_task
from sketchvar.estimators import CATALOG, choices
from sketchvar.estimators.catalog import check_known
from sketchvar.estimators.spelling import EXAMPLES

# one of each kind; whatever is spelled and has a closed form can be given
ESTIMATORS = [
    "gaussian",
    "rademacher",
    "countsketch",
    "srht",
    "uniform-rows",
    "norm-rows",
    "optimal-rows",
]
KNOWN = ", ".join(choice.name for choice in choices(CATALOG, 1.0) if not choice.no_closed_form)
RATES = [0.5, 0.2, 0.1, 0.05]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "run",
        help=(
            "train a task and compare, layer by layer, each estimator's variance with the minibatch"
            " variance"
        ),
        description=(
            "Train a task. At chosen steps measure, in every linear layer, the variance of its"
            " weight gradient over minibatches and the variance that each estimator would add."
            " Writes rows.parquet, run.json and figures."
        ),
        formatter_class=Help,
    )
    add_options(this)
    this.set_defaults(main=main)


def add_options(this: argparse.ArgumentParser) -> None:
    """The options of a study, for every command that makes one."""
    add_task(this, default="stdlib-lm")
    this.add_argument(
        "--steps", type=int, metavar="N", help="number of updates (default: the task's own)"
    )
    this.add_argument(
        "--measure-at",
        type=int,
        nargs="+",
        metavar="S",
        help=(
            "measure the gradient after so many updates, 0 to N (default: the task's own, up to N)"
        ),
    )
    this.add_argument(
        "--estimators",
        nargs="+",
        default=ESTIMATORS,
        metavar="E",
        help=(
            f"which estimators to compare, with rate or bits of their own ({EXAMPLES}) or by name:"
            f" {KNOWN}"
        ),
    )
    this.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=RATES,
        metavar="R",
        help="fractions of X to keep, 0 to 1",
    )
    this.add_argument(
        "--device",
        default="auto",
        metavar="D",
        help="auto, cpu, cuda or cuda:N; auto takes a GPU if any",
    )
    this.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="the same seed gives the same rows on a CPU",
    )
    this.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: runs/<task>-<time>)"
    )
    this.add_argument("--resume", action="store_true", help="go on with the stopped run in --out")


def add_task(this: argparse.ArgumentParser, default: str) -> None:
    """The options that say what to train."""
    this.add_argument(
        "--task", default=default, metavar="T", help=f"what to train: {', '.join(TASKS)}"
    )
    this.add_argument(
        "--model",
        dest="pretrained",
        default=argparse.SUPPRESS,
        metavar="M",
        help=(
            "for glue/...: a directory, minilm (the installed package), or a name on the hub"
            " (default: roberta-base)"
        ),
    )
    this.add_argument(
        "--data-dir",
        default=argparse.SUPPRESS,
        metavar="DIR",
        help=(
            "for glue/... and cifar10/...: a directory of GLUE's TSV files or of CIFAR-10's images "
            "(default: the one in SKETCHVAR_DATASETS, else the hub)"
        ),
    )
    this.add_argument(
        "--batch-size",
        type=int,
        default=argparse.SUPPRESS,
        metavar="B",
        help="examples in a batch (default: the task's)",
    )
    this.add_argument(
        "--learning-rate",
        type=float,
        default=argparse.SUPPRESS,
        metavar="L",
        help="of AdamW (default: the task's)",
    )
    this.add_argument(
        "--depth", type=int, default=argparse.SUPPRESS, metavar="D", help="blocks, from scratch"
    )
    this.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default=argparse.SUPPRESS,
        help="of matrix products; weights are float32 (default: the task's)",
    )


def options_of(arguments: argparse.Namespace) -> Options:
    """What ``add_task`` was given beside the task's name."""
    names = ("pretrained", "data_dir", "batch_size", "learning_rate", "depth", "precision")
    return tuple(
        (name, value) for name in names if (value := getattr(arguments, name, None)) is not None
    )


def main(arguments: argparse.Namespace) -> None:
    """Run the study, with a progress bar, then draw it."""
    figures.draw(followed(arguments))


def followed(arguments: argparse.Namespace) -> Path:
    """Run the study that the options describe, with a progress bar; returns its folder."""
    if arguments.resume and arguments.out is None:
        raise ValueError("--resume needs --out, the folder of the run to go on with")
    options = options_of(arguments)
    task = find_task(arguments.task, options)
    steps = task.steps if arguments.steps is None else arguments.steps
    study = Study(
        task=arguments.task,
        steps=steps,
        measure_at=tuple(
            arguments.measure_at
            or sorted({s for s in task.measure_at if s <= steps} | {max(steps, 0)})
        ),
        estimators=tuple(arguments.estimators),
        rates=tuple(arguments.rates),
        device=device(arguments.device),
        seed=arguments.seed,
        options=options,
    )
    out = (
        arguments.out
        or Path("runs") / f"{arguments.task.replace('/', '-')}-{datetime.now():%Y-%m-%dT%H-%M-%S}"
    )
    console = Console(stderr=True)
    console.print(
        f"Training {study.task} for {study.steps} steps on {study.device}; rows go to"
        f" {out}/rows.parquet"
    )
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    try:
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
            shown = bar.add_task("train", total=study.steps, loss="")
            return run(
                study,
                out,
                arguments.resume,
                lambda step, loss: bar.update(shown, completed=step, loss=f"loss {loss:.3f}"),
            )
    except KeyboardInterrupt:
        raise ValueError(
            f"interrupted; measured rows are kept, go on with --out {out} --resume"
        ) from None


def device(name: str) -> str:
    """ "auto" resolved, any other name checked. Raises ValueError for a device that is unknown or
    absent.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    check_known("device", kind, ["auto", "cpu", "cuda"])
    if kind == "cuda":
        count = torch.cuda.device_count()
        if not (number or "0").isdecimal() or int(number or 0) >= count:
            raise ValueError(
                f"device {name} is not here ({count} CUDA devices); use --device auto or cpu"
            )
    elif number:
        raise ValueError(f"unknown device {name!r}; did you mean {kind!r}?")
    return name
