"""How the rows of the paper's items are made: by a study, a frontier, a sweep, draws or a bench;
and their options.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sketchvar.analysis import records
from sketchvar.analysis.commands import bench, run, train
from sketchvar.analysis.frontier.rows import frontier
from sketchvar.analysis.loop import layers_at
from sketchvar.analysis.paper import averaging, probed, throughput, variance
from sketchvar.analysis.tasks import find_task

Options = Callable[[argparse.ArgumentParser], None]
Maker = Callable[[argparse.Namespace, Path], None]  # fills a folder


def make_study(a: argparse.Namespace, out: Path) -> None:
    """Train and measure as ``run``; evenly spread points unless they are given."""
    steps = 200 if a.steps is None else a.steps
    points = a.measure_at or sorted(
        {round(steps * part) for part in (0, 0.01, 0.03, 0.1, 0.3, 0.6, 1)}
    )
    run.followed(
        argparse.Namespace(
            **vars(a) | {"out": out, "steps": steps, "measure_at": points, "resume": True}
        )
    )


def make_frontier(a: argparse.Namespace, out: Path) -> None:
    """The frontier of every layer of a trained step: variance by closed form, or by draws where
    there is none.
    """
    task, device = find_task(a.task, run.options_of(a)), torch.device(run.device(a.device))
    steps = [100] if a.steps is None else [a.steps]
    out.mkdir(parents=True, exist_ok=True)
    records.write_json(out / "run.json", records.provenance(device) | task.provenance())
    for step, layers in layers_at(task, steps, device, a.seed):
        parts = [
            frontier(layer, task.dtype, a.estimators, a.rates, a.draws, a.seed)
            for layer in layers.values()
        ]
        records.write_rows(out / "rows.parquet", pd.concat(parts).assign(task=a.task, step=step))


def make_sweep(a: argparse.Namespace, out: Path) -> None:
    """Train as ``train``."""
    train.main(argparse.Namespace(**vars(a) | {"out": out}))


def make_averaging(a: argparse.Namespace, out: Path) -> None:
    """Draws on the pair of one layer of a trained step."""
    task, device = find_task(a.task, run.options_of(a)), torch.device(run.device(a.device))
    steps = 100 if a.steps is None else a.steps
    if max(a.counts) * a.rate > 1:
        raise ValueError(
            f"{max(a.counts)} sketches of rate {a.rate:g} keep more than X; give fewer, or a"
            " smaller rate"
        )
    out.mkdir(parents=True, exist_ok=True)
    records.write_json(out / "run.json", records.provenance(device) | task.provenance())
    for _, layers in layers_at(task, [steps], device, a.seed):
        layer = layers[a.layer or variance.find_middle(pd.DataFrame({"layer": list(layers)}))]
        rows = averaging.average_sketches(layer, a.estimators, a.rate, a.counts, a.draws, a.seed)
        records.write_rows(out / "rows.parquet", rows)


def make_throughput(a: argparse.Namespace, out: Path) -> None:
    """Training steps, timed in pairs."""
    task = find_task(a.task, run.options_of(a))
    bench.recorded(
        throughput.throughput(a.task, task, a.estimators, a.rates, run.device(a.device), a.repeats),
        out,
        "rows",
    )


def make_damage(a: argparse.Namespace, out: Path) -> None:
    """A sweep for every block, with the other blocks exact."""
    model = find_task(a.task, run.options_of(a)).model()
    blocks = sorted({probed.find_block(name) for name, _ in model.named_modules()})
    tables = []
    for block in (int(b) for b in blocks if b == b):
        train.main(argparse.Namespace(**vars(a) | {"out": out / "sweep", "layers": f"*.{block}.*"}))
        tables.append(records.read_rows(out / "sweep" / "summary.parquet").assign(block=block))
        records.write_rows(out / "rows.parquet", pd.concat(tables, ignore_index=True))


def study_options(this: argparse.ArgumentParser) -> None:
    """Those of ``run``, and one layer."""
    run.add_options(this)
    this.add_argument(
        "--layer", metavar="NAME", help="the layer that is drawn (default: one in the middle)"
    )


def layer_options(this: argparse.ArgumentParser) -> None:
    """A task, one step of it, and draws."""
    run.add_task(this, default="stdlib-lm")
    this.add_argument(
        "--steps",
        type=int,
        default=100,
        metavar="N",
        help="updates before the gradient is measured",
    )
    this.add_argument("--estimators", nargs="+", metavar="E", help="as in gaussian or rounding:2")
    this.add_argument(
        "--rates", type=float, nargs="+", metavar="R", help="fractions of X's bytes to keep"
    )
    this.add_argument(
        "--draws", type=int, metavar="N", help="draws behind a variance that has no closed form"
    )
    this.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    this.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the model, its training and the draws"
    )
    this.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: runs/paper-<item>-<time>)"
    )


def averaging_options(this: argparse.ArgumentParser) -> None:
    """Those of one step, the sketches and how many of them are averaged."""
    layer_options(this)
    this.add_argument("--rate", type=float, default=0.05, metavar="R", help="of each sketch")
    this.add_argument(
        "--counts",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8],
        metavar="M",
        help="sketches to average",
    )
    this.add_argument("--layer", metavar="NAME", help="(default: one in the middle)")


def throughput_options(this: argparse.ArgumentParser) -> None:
    """A task, and repeats."""
    layer_options(this)
    this.add_argument(
        "--repeats", type=int, default=15, metavar="N", help="paired steps behind every ratio"
    )


def bench_options(module: Any) -> Options:
    """Those of a bench, and where to write."""

    def options(this: argparse.ArgumentParser) -> None:
        module.add_arguments(this)
        this.add_argument(
            "--out",
            type=Path,
            metavar="DIR",
            help="where to write (default: runs/paper-<item>-<time>)",
        )

    return options


def made_by(
    measure: Callable[[argparse.Namespace], None],
) -> Callable[[argparse.Namespace, Path], None]:
    """A bench as the maker of an item."""
    return lambda a, out: measure(argparse.Namespace(**vars(a) | {"out": out}))
