"""sketchvar frontier: which estimator gives the least variance for the bytes that can be spent."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sketchvar.analysis import records
from sketchvar.analysis.commands import Help
from sketchvar.analysis.commands.run import add_task, device, options_of
from sketchvar.analysis.folder import Folder, task_of
from sketchvar.analysis.frontier import figure as frontier_figure
from sketchvar.analysis.frontier.best import BASELINE, average, find_best, merge_lines
from sketchvar.analysis.frontier.rows import (
    BUDGETS,
    DRAWS,
    ESTIMATORS,
    FRACTIONS,
    frontier,
    of_run,
)
from sketchvar.analysis.loop import layers_at
from sketchvar.analysis.noise.layer import pair_layer
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.style import save
from sketchvar.analysis.tasks import Task, find_task
from sketchvar.estimators import choices
from sketchvar.estimators.spelling import EXAMPLES


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "frontier",
        help="which estimator gives the least variance for the bytes that can be spent",
        description=(
            "Compare all estimators at equal kept bytes, indices, scales and seeds included: on a"
            " pair (X, Y) from a file, on one layer of a task, or in the median over all its layers"
            " and steps. Prints the best for each budget of bytes; writes frontier.parquet,"
            " frontier.json and a figure."
        ),
        formatter_class=Help,
    )
    add_task(this, default="stdlib-lm")
    source = this.add_mutually_exclusive_group()
    source.add_argument(
        "--pair",
        type=Path,
        metavar="FILE",
        help=(
            "a .pt, .npz or .safetensors file with x and y: n × p and n × q, where a row is an"
            " example, or examples × length × p and × q"
        ),
    )
    source.add_argument(
        "--run", type=Path, metavar="RUN", help="the rows of a run that was made before"
    )
    this.add_argument(
        "--layer", metavar="NAME", help="one layer of the task (default: the median over all)"
    )
    this.add_argument(
        "--step",
        type=int,
        nargs="+",
        metavar="S",
        help="after so many updates (default: the task's own points)",
    )
    this.add_argument(
        "--estimators",
        nargs="+",
        default=ESTIMATORS,
        metavar="E",
        help=(
            f"which to compare: {EXAMPLES} (default: the catalog, and rounding with rotation and"
            " centering)"
        ),
    )
    this.add_argument(
        "--budgets",
        type=float,
        nargs="+",
        default=BUDGETS,
        metavar="B",
        help="fractions of X's bytes",
    )
    this.add_argument(
        "--draws",
        type=int,
        metavar="N",
        help=(
            f"draws behind a variance without a closed form (default: {DRAWS} for one pair or layer"
            " at one step, else 0, which leaves such estimators out)"
        ),
    )
    this.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    this.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the model, its training and the draws"
    )
    this.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: runs/frontier-<time>)"
    )
    this.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> None:
    """Measure, write the rows as they come, print the table, draw the figure."""
    a = arguments
    task, where = check(a), torch.device(device(a.device))
    tables = of_a_run(a) if a.run else of_a_pair(a, where) if a.pair else of_a_task(task, a, where)
    out = a.out or Path("runs") / f"frontier-{datetime.now():%Y-%m-%dT%H-%M-%S}"
    out.mkdir(parents=True, exist_ok=True)
    options = {
        name: str(value) for name, value in vars(a).items() if name not in ("main", "command")
    }
    origin = records.provenance(where) | ({} if a.pair or a.run else task.provenance())
    records.write_json(out / "frontier.json", {"options": options, **origin})
    rows = pd.DataFrame()
    for table in tables:
        rows = records.append_rows(rows, table.assign(run=table.get("run", out.name)))
        records.write_rows(out / "frontier.parquet", rows)
    if not (rows["ratio"] > 0).any():
        raise ValueError(
            f"no ratio can be drawn: every variance in {out / 'frontier.parquet'} is 0 or not a"
            " number"
        )
    table = average(rows)
    show(table, a.budgets)
    mpl.use("agg")
    picture = save(frontier_figure.frontier(merge_lines(table)), out / "frontier")[0]
    print(f"\n{out / 'frontier.parquet'}\n{picture}")


def check(a: argparse.Namespace) -> Task:
    """The task. Raises ValueError for options that make no sense, before any work."""
    choices(a.estimators, 1.0)
    if wrong := [b for b in a.budgets if not 0 < b <= 1]:
        raise ValueError(
            f"budgets are fractions of X's bytes, 0 to 1, got {wrong[0]:g}; write 0.125 for 12.5 %"
        )
    if (a.pair or a.run) and (a.layer or a.step):
        raise ValueError(
            "--layer and --step choose from a --task; leave them out with --pair or --run"
        )
    if a.step and (min(a.step) < 0 or a.step != sorted(set(a.step))):
        raise ValueError(
            f"steps must be different and rising from 0, got {' '.join(map(str, a.step))}; change"
            " --step"
        )
    if a.draws is not None and (a.draws < 0 or a.draws == 1):
        raise ValueError(f"--draws must be 0, or 2 or more for a standard error, got {a.draws}")
    task = find_task(a.task, options_of(a))
    if a.layer:
        Probe(task.model(), pairs=[a.layer])  # refuses a name that it does not know
    return task


def of_a_run(a: argparse.Namespace) -> Iterable[pd.DataFrame]:
    """The rows of a run that was made before."""
    return [of_run(records.read_rows(Folder(a.run).rows), task_of(a.run).dtype)]


def of_a_pair(a: argparse.Namespace, where: torch.device) -> Iterable[pd.DataFrame]:
    """The frontier of the pair in a file."""
    x, y = (t.to(where) for t in read_pair(a.pair))
    draws = DRAWS if a.draws is None else a.draws
    return [frontier(pair_layer(x, y), x.dtype, a.estimators, fractions(a), draws, a.seed)]


def of_a_task(task: Task, a: argparse.Namespace, where: torch.device) -> Iterator[pd.DataFrame]:
    """The frontier of every layer that was asked for, a table for each step."""
    console = Console(stderr=True)
    steps = a.step or list(task.measure_at)
    draws = (DRAWS if a.layer and len(steps) == 1 else 0) if a.draws is None else a.draws
    console.print(
        f"Training {a.task} for {steps[-1]} steps; rows are written after every measured one"
    )
    for step, layers in layers_at(task, steps, where, a.seed, a.layer):
        new = [
            frontier(layer, task.dtype, a.estimators, fractions(a), draws, a.seed)
            for layer in layers.values()
        ]
        console.print(f"step {step}: {len(layers)} layers")
        yield pd.concat([table.assign(task=a.task, step=step) for table in new], ignore_index=True)


def fractions(a: argparse.Namespace) -> list[float]:
    """Those of the figure and those of the table."""
    return sorted({*FRACTIONS, *a.budgets}, reverse=True)


def read_pair(path: Path) -> tuple[Tensor, Tensor]:
    """x and y of a file. Raises ValueError where it is missing, unreadable, or holds no finite
    floating x and y.
    """
    if not path.exists():
        raise ValueError(f"no file {path}; give one with x and y")
    if path.suffix not in READERS:
        raise ValueError(f"cannot read {path}; give a .pt, .npz or .safetensors file with x and y")
    try:
        content = READERS[path.suffix](path)
    except Exception as error:  # each library has its own
        raise ValueError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or not {"x", "y"} <= set(content):
        known = (
            ", ".join(map(str, content))
            if isinstance(content, dict)
            else f"a {type(content).__name__}"
        )
        raise ValueError(
            f"{path} holds {known}, not x and y; save it as in torch.save({{'x': x, 'y': y}},"
            f" '{path}')"
        )
    x, y = torch.as_tensor(content["x"]), torch.as_tensor(content["y"])
    if not x.is_floating_point() or x.dtype != y.dtype:
        raise ValueError(
            f"x and y of {path} must be of one floating dtype, got {x.dtype} and {y.dtype}; convert"
            " them"
        )
    for name, t in (("x", x), ("y", y)):
        if not t.isfinite().all():
            raise ValueError(
                f"{name} of {path} is not finite in {int((~t.isfinite()).sum())} places; leave"
                " those rows out"
            )
    return x, y


def read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file  # comes with transformers

    return load_file(path)


READERS: dict[str, Callable[[Path], object]] = {
    ".pt": partial(torch.load, weights_only=True, map_location="cpu"),
    ".npz": lambda path: dict(np.load(path)),
    ".safetensors": read_safetensors,
}


def show(table: pd.DataFrame, budgets: list[float]) -> None:
    """The best estimators for each budget, beside the baseline."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=170)
    grid = Table(
        title="Least estimator variance / minibatch variance (by example) for the bytes kept of X",
        caption=(
            "1 = as noisy as the minibatch. Oracles and biased estimators are never among the best."
        ),
    )
    for column in ("bytes", "best", "", "second", "", "third", "", BASELINE):
        grid.add_column(
            column,
            justify="left" if column in ("best", "second", "third") else "right",
            overflow="fold",
        )
    for budget in sorted(budgets, reverse=True):
        cells = []
        for _, row in find_best(table, budget).iterrows():
            note = " (draws)" if row["stderr"] > 0 else ""
            cells += [f"{row['estimator']}{note}", f"{row['ratio']:.2g}"]
        baseline = find_best(table[table["estimator"] == BASELINE], budget)["ratio"]
        cells += [""] * (6 - len(cells)) + [f"{baseline.iloc[0]:.2g}" if len(baseline) else ""]
        grid.add_row(f"{100 * budget:g} %", *cells)
    console.print(grid)
