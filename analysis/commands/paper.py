"""sketchvar paper ITEM: every figure of the paper, corrected, and every question of its reviewers,
one command each.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from sketchvar.analysis import records
from sketchvar.analysis import style as figures
from sketchvar.analysis.bench import layer as bench_layer
from sketchvar.analysis.bench import memory as bench_memory
from sketchvar.analysis.bench.figures import layer_times
from sketchvar.analysis.commands import Help, bench, train
from sketchvar.analysis.paper import figures as pictures
from sketchvar.analysis.paper import probed_figures, trained_figures, variance
from sketchvar.analysis.paper import rows as made
from sketchvar.analysis.sweep import figures as training_figures

MATMULS = ["gaussian", "rademacher", "dct"]
BATCH_OR_FEATURE = [
    "uniform-rows",
    "countsketch",
    "gaussian",
    "feature-columns",
    "feature-rademacher",
]
QUANTISED = [
    "rounding:1",
    "rounding:2",
    "rounding:4",
    "feature-gaussian+rounding:2",
    "uniform-rows",
    "countsketch",
]


@dataclass(frozen=True)
class Item:
    """One figure: how its rows are made and which file of a folder holds them, and how they are
    drawn.
    """

    about: str
    options: made.Options
    make: made.Maker
    rows: str
    draw: Callable[[pd.DataFrame, argparse.Namespace], Figure]
    defaults: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()  # where one task is not enough
    panels: bool = False  # whether it draws several tasks side by side


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "paper",
        help=(
            "the figures of the paper, corrected, and the questions its reviewers asked, one"
            " command each"
        ),
        description=(
            "Make or read the rows of one item, then draw it beside what the paper reports"
            " (Bershatsky et al. 2022, arXiv 2201.13195). Stopped, the same command with the same"
            " --out goes on."
        ),
    )
    items = this.add_subparsers(dest="item", required=True, metavar="ITEM")
    for name, item in ITEMS.items():
        one = items.add_parser(
            name,
            help=item.about,
            description=f"Figure: {item.about}" + ("" if item.about.endswith("?") else "."),
            formatter_class=Help,
        )
        item.options(one)
        one.add_argument(
            "--from",
            dest="folders",
            type=Path,
            nargs="+",
            default=[],
            metavar="DIR",
            help="draw what is in these folders instead of measuring",
        )
        one.set_defaults(main=partial(main, name), out=None, **item.defaults)
        if item.tasks:
            one.set_defaults(task=None)


def main(name: str, arguments: argparse.Namespace) -> None:
    """Make what is missing, read it, draw it, and say where the figure is."""
    item, a = ITEMS[name], arguments
    out = a.out or Path("runs") / f"paper-{name}-{datetime.now():%Y-%m-%dT%H-%M-%S}"
    folders = list(a.folders)
    if not folders:
        tasks = [a.task] if getattr(a, "task", None) else list(item.tasks)
        for task in tasks or [None]:
            folders.append(out / task.replace("/", "-") if len(tasks) > 1 else out)
            item.make(argparse.Namespace(**vars(a) | {"task": task}), folders[-1])
    rows = pd.concat(
        [records.read_rows(folder / item.rows).pipe(of_task, folder) for folder in folders]
    )
    found = list(rows["task"].unique()) if "task" in rows else []
    if len(found) > 1 and not item.panels:
        raise ValueError(f"paper {name} draws one task at a time; --from holds {', '.join(found)}")
    out.mkdir(parents=True, exist_ok=True)
    mpl.use("agg")
    figure = item.draw(rows.reset_index(drop=True), a)
    print(figures.save(figure, out / name)[0])


def of_task(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The rows with a column ``task``; a study's are told by its run.json."""
    if "task" in rows or not (folder / "run.json").exists():
        return rows
    about = records.read_json(folder / "run.json")
    return rows.assign(task=about["study"]["task"]) if "study" in about else rows


def just(
    draw: Callable[[pd.DataFrame], Figure],
) -> Callable[[pd.DataFrame, argparse.Namespace], Figure]:
    """A drawing that no option changes."""
    return lambda rows, a: draw(rows)


def draw_variance(rows: pd.DataFrame, a: argparse.Namespace) -> Figure:
    """The figure of one layer; says at how many points the bound holds."""
    found = variance.correct(rows)
    layer = a.layer or variance.find_middle(found)
    if layer not in set(found["layer"]):
        raise ValueError(
            f"no layer {layer!r} was measured; known are {', '.join(dict.fromkeys(found['layer']))}"
        )
    for column, what in (
        ("holds", "as the paper computes the ratio"),
        ("holds_corrected", "for the Gaussian sketch"),
    ):
        print(
            f"(1 + α)/α bounds the ratio at {found[column].sum()} of {len(found)} layers and steps,"
            f" {what}"
        )
    return pictures.variance(found[found["rate"] == a.rates[0]], layer)


FINE = {"estimators": ["gaussian"], "rates": [0.5]}
ITEMS = {
    "score": Item(
        "final score by rate, with intervals over seeds",
        train.add_options, made.make_sweep, "summary.parquet", just(trained_figures.score),
        {"estimators": ["gaussian"], "rates": [0.5, 0.2, 0.1], "fractions": []}, panels=True,
    ),
    "matmuls": Item(
        "scores and times of different random matrices, beside the paper's",
        train.add_options, made.make_sweep, "summary.parquet", just(trained_figures.matmuls),
        {"estimators": MATMULS, "rates": [0.5, 0.2, 0.1], "fractions": []},
    ),
    "curves": Item(
        "validation loss through training",
        train.add_options, made.make_sweep, "rows.parquet", just(training_figures.validation_curves), {"fractions": []},
    ),
    "memory": Item(
        "peak memory by batch size and rate, beside the paper's",
        made.bench_options(bench_memory), made.made_by(bench.main_memory), "memory.parquet", just(pictures.memory),
        {"estimators": ["gaussian"], "rates": [0.5, 0.2, 0.1], "batch": [8, 16, 32]},
    ),
    "throughput": Item(
        "throughput of training steps by rate, beside the paper's",
        made.throughput_options, made.make_throughput, "rows.parquet", just(pictures.throughput),
        {"estimators": [*MATMULS, "countsketch", "uniform-rows"], "rates": [0.5, 0.2, 0.1]},
    ),
    "variance": Item(
        "D²_SGD, D²_RMM and their ratio through training, as the paper computes them, corrected, and the bound",
        made.study_options, made.make_study, "rows.parquet", draw_variance, FINE | {"batch_size": 64},
    ),
    "axis": Item(
        "compress the batch axis or the feature axis?",
        made.layer_options, made.make_frontier, "rows.parquet", just(probed_figures.by_kept),
        {"estimators": BATCH_OR_FEATURE, "rates": [0.5, 0.25, 0.125, 0.0625], "draws": 0},
    ),
    "quantised": Item(
        "quantised activations (1, 2, 4 bits) and EXACT, at equal bytes",
        made.layer_options, made.make_frontier, "rows.parquet", just(probed_figures.by_kept),
        {"estimators": QUANTISED, "rates": [0.25, 0.125, 0.0625, 0.03], "draws": 16},
    ),
    "scratch": Item(
        "does a step train like one on 1 / (1 + ratio) of the batch, from scratch and fine-tuning?",
        train.add_options, made.make_sweep, "predictions.parquet", just(trained_figures.predicted),
        tasks=("stdlib-lm", "glue/cola"), panels=True,
    ),
    "architectures": Item(
        "a vision transformer and a convolutional network",
        train.add_options, made.make_sweep, "summary.parquet", just(trained_figures.differences),
        tasks=("cifar10/vit", "cifar10/conv"), panels=True,
    ),
    "depth": Item(
        "does the ratio grow with depth?",
        made.study_options, made.make_study, "rows.parquet", lambda rows, a: probed_figures.by_depth(rows, a.rates[0]),
        {"estimators": ["gaussian", "countsketch", "uniform-rows", "rounding:2"], "rates": [0.1]},
    ),
    "damage": Item(
        "does the damage of a sketch depend on the depth where it is?",
        train.add_options, made.make_damage, "rows.parquet", just(trained_figures.damage),
        {"estimators": ["gaussian", "uniform-rows"], "rates": [0.1], "fractions": []},
    ),
    "averaging": Item(
        "what does averaging several sketches buy?",
        made.averaging_options, made.make_averaging, "rows.parquet", just(pictures.averaging),
        {"estimators": ["gaussian", "countsketch", "uniform-rows"], "draws": 200},
    ),
    "time": Item(
        "what a sketched layer costs in time",
        made.bench_options(bench_layer), made.made_by(bench.main_layer), "layer.parquet",
        just(layer_times),
        {"estimators": [*MATMULS, "countsketch", "uniform-rows", "rounding:2"]},
    ),
    "alpha": Item(
        "α per layer and task",
        made.study_options, made.make_study, "rows.parquet", just(probed_figures.alpha),
        FINE, tasks=("stdlib-lm", "digits-mlp", "cifar10/vit"), panels=True,
    ),
}  # fmt: skip
