"""sketchvar gpu-suite: measure on a GPU everything that is claimed of one, within a time limit."""

import argparse
import os
import re
from datetime import date
from pathlib import Path

import matplotlib as mpl
import torch
from rich.console import Console
from rich.table import Table

from sketchvar.analysis.commands import Help
from sketchvar.analysis.commands.run import device
from sketchvar.analysis.gpu.parts import PARTS
from sketchvar.analysis.gpu.scale import FULL, TINY
from sketchvar.analysis.gpu.suite import draw, numbers, suite
from sketchvar.estimators.catalog import check_known


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "gpu-suite",
        help="measure on a GPU everything that is claimed of one",
        description=(
            "Run all measurements that need a GPU, most valuable first, within a time limit:"
            " variance through the training of a model of GPT-2's size, time and memory of layers,"
            " kernels against the hardware's limits, the probe's cost, memory and throughput of"
            " training, redrawn minibatches. Every part writes its rows as it goes, and the same"
            " command again goes on with what was not done. No network is needed."
        ),
        formatter_class=Help,
    )
    this.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: data/gpu/<gpu>-<date>)"
    )
    this.add_argument(
        "--minutes", type=float, default=25, metavar="M", help="time for all parts together"
    )
    this.add_argument(
        "--parts",
        nargs="+",
        default=list(PARTS),
        metavar="P",
        help="which parts to run, in this order",
    )
    this.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    this.add_argument(
        "--tiny",
        action="store_true",
        help="every part at toy size, on any device: a test of the suite itself",
    )
    this.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> None:
    """Run the suite, draw its figures, print a short table."""
    where = device(arguments.device)
    if where == "cpu" and not arguments.tiny:
        raise ValueError(
            "gpu-suite needs a CUDA device and found none; --tiny runs every part at toy size on"
            " a CPU"
        )
    if arguments.minutes <= 0:
        raise ValueError(f"--minutes must be above 0, got {arguments.minutes:g}")
    for part in arguments.parts:
        check_known("part", part, PARTS)
    out = arguments.out or Path("data") / "gpu" / f"{label(where)}-{date.today()}"
    os.environ.setdefault(
        "SKETCHVAR_KERNELS", "on"
    )  # the suite is what tells whether they are right and worth it
    console = Console() if Console().is_terminal else Console(width=120)
    results = suite(
        TINY if arguments.tiny else FULL,
        out,
        where,
        arguments.minutes,
        arguments.parts,
        lambda line: console.print(line, soft_wrap=True),
    )
    grid = Table("part", "rows", "seconds", "state", "left out", title=f"GPU suite: {out}")
    for r in results:
        grid.add_row(r.part, str(r.rows), f"{r.seconds:.0f}", r.state, str(len(r.skipped) or ""))
    console.print(grid)
    if where != "cpu":
        table = Table("number", "bound", "measured")
        for line in numbers(out).itertuples():
            table.add_row(str(line.number), str(line.bound), f"{line.measured:.3f}")
        console.print(table)
    mpl.use("agg")
    for path in draw(out):
        console.print(str(path), soft_wrap=True)


def label(where: str) -> str:
    """The GPU's name, fit for a folder."""
    name = torch.cuda.get_device_name(where) if where != "cpu" else "cpu"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
