"""sketchvar paper ITEM: every figure of the paper, corrected, and every question of its reviewers,
one command each.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sketchvar.analysis.commands import bench, options
from sketchvar.analysis.commands.asked import (
    OfStudy,
    OfSweep,
    OfTask,
    OnDevice,
    ToFolder,
    blame_words,
)
from sketchvar.analysis.commands.command import Command, Group
from sketchvar.analysis.commands.option import Shown, option
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder
from sketchvar.analysis.commands.training import train_grid, train_study
from sketchvar.analysis.paper.items import ITEMS, Drawn, Item

POINTS = (0, 0.01, 0.03, 0.1, 0.3, 0.6, 1)  # of a study, as fractions of its steps
STEPS = 200  # of a study
UPDATES = "updates before the gradient is measured"


@dataclass(frozen=True)
class FromFolders(Shown):
    """What can be drawn of rows that are there."""

    folders: tuple[Path, ...] = option(
        "--from",
        default=(),
        type=Path,
        nargs="+",
        section="output",
        metavar="DIR",
        help="draw what is in these folders instead of measuring",
    )


@dataclass(frozen=True)
class AskedStudy(FromFolders, OfStudy):
    """The options of an item that a study answers."""

    layer: str | None = options.layer("one in the middle")


@dataclass(frozen=True)
class AskedSweep(FromFolders, OfSweep):
    """The options of an item that trained runs answer."""


@dataclass(frozen=True)
class AskedStep(FromFolders, ToFolder, OnDevice, OfTask):
    """The options of an item that one step of a training answers."""

    steps: int = options.steps(100, UPDATES)
    estimators: tuple[str, ...] = options.estimators(())
    seed: int = options.seed()


@dataclass(frozen=True)
class AskedAxis(AskedStep):
    """The options of an item at equal bytes."""

    rates: tuple[float, ...] = options.rates()
    draws: int = options.draws(0, "draws behind a variance that has no closed form")


@dataclass(frozen=True)
class AskedAveraging(AskedStep):
    """The options of ``paper averaging``."""

    rate: float = options.rate(0.05)
    counts: tuple[int, ...] = option(
        "--counts",
        default=(1, 2, 4, 8),
        type=int,
        nargs="+",
        metavar="M",
        help="sketches to average",
    )
    draws: int = options.draws(200, "draws of each mean")
    layer: str | None = options.layer("one in the middle")


@dataclass(frozen=True)
class AskedThroughput(AskedStep):
    """The options of ``paper throughput``."""

    rates: tuple[float, ...] = options.rates()
    repeats: int = options.repeats(15, "paired steps behind every ratio")


@dataclass(frozen=True)
class AskedLayer(FromFolders, bench.AskedLayer):
    """The options of ``paper time``."""


@dataclass(frozen=True)
class AskedMemory(FromFolders, bench.AskedMemory):
    """The options of ``paper memory``."""


def make_study(asked: AskedStudy, out: Path, screen: Screen) -> None:
    """Train and measure as ``run``, at evenly spread points unless they are given."""
    steps = STEPS if asked.steps is None else asked.steps
    study = asked.make_study(steps, tuple(sorted({round(steps * part) for part in POINTS})))
    train_study(study, out, screen)


def make_sweep(asked: AskedSweep, out: Path, screen: Screen) -> None:
    """Train as ``train``."""
    train_grid(asked.make_grid(), out, asked, screen)


def make_damage(asked: AskedSweep, out: Path, screen: Screen) -> None:
    """Train as ``train`` for every block, with the other blocks exact."""
    from sketchvar.analysis.paper.rows import list_blocks, write_damage

    blocks, sweep = list_blocks(asked.make_task()), out / "sweep"
    for block in blocks:
        train_grid(replace(asked, layers=f"*.{block}.*").make_grid(), sweep, asked, screen)
        write_damage(out, sweep, block)


def make_step(
    kind: str, fields: tuple[str, ...], asked: AskedStep, out: Path, screen: Screen
) -> None:
    """Measure at one step of a training."""
    from sketchvar.analysis.paper import rows

    changes, device = asked.list_changes(), asked.pick_device()
    with blame_words():
        step = getattr(rows, kind)(
            task=asked.task,
            options=changes,
            steps=asked.steps,
            estimators=asked.estimators,
            device=device,
            seed=asked.seed,
            **{name: getattr(asked, name) for name in fields},
        )
    what = f"Training {asked.task} for {asked.steps} steps on {device}; rows go to {out}"
    with screen.track(what, {"measured": None}, out) as update:
        rows.make(step, out, lambda done, total: update("measured", done, total=total))


# how the rows of an item are made: its options, and what fills a folder
WORK: dict[str, tuple[type, Callable[[Any, Path, Screen], None]]] = {
    "study": (AskedStudy, make_study),
    "sweep": (AskedSweep, make_sweep),
    "damage": (AskedSweep, make_damage),
    "frontier": (AskedAxis, partial(make_step, "Axis", ("rates", "draws"))),
    "averaging": (
        AskedAveraging,
        partial(make_step, "Averaging", ("rate", "counts", "draws", "layer")),
    ),
    "throughput": (AskedThroughput, partial(make_step, "Throughput", ("rates", "repeats"))),
    "layer": (AskedLayer, bench.measure_layer),
    "memory": (AskedMemory, bench.measure_memory),
}


def main(name: str, item: Item, asked: Any, screen: Screen) -> None:
    """Make what is missing, then show it with the item's figure."""
    from sketchvar.analysis.paper.folder import describe, read_rows

    out, tasks = asked.choose_folder("paper", name), list_tasks(item, asked)
    drawn = Drawn(getattr(asked, "layer", None), getattr(asked, "rate", None) or asked.rates[0])
    if asked.folders:
        read_rows(name, list(asked.folders))  # what cannot be drawn shows before anything is made
        describe(out, name, list(asked.folders), drawn)
    elif len(tasks) > 1:
        folders = [out / task.replace("/", "-") for task in tasks]
        describe(out, name, folders, drawn)
        for task, folder in zip(tasks, folders, strict=True):
            WORK[item.work][1](replace(asked, task=task), folder, screen)
    else:
        WORK[item.work][1](replace(asked, task=tasks[0]) if tasks else asked, out, screen)
        describe(out, name, [out], drawn)
    show_folder(out, screen)


def list_tasks(item: Item, asked: Any) -> list[str]:
    """The tasks that are trained, none where an item is about no task."""
    if not hasattr(asked, "task"):
        return []
    return [asked.task] if asked.task else list(item.tasks)


def make_command(name: str, item: Item) -> Command:
    """The command of an item."""
    asked, _ = WORK[item.work]
    several = {"task": None} if item.tasks else {}
    end = "" if item.about.endswith("?") else "."
    usual = f" Of {', '.join(item.tasks)} unless --task says otherwise." if item.tasks else ""
    return Command(
        name,
        item.about,
        f"Figure: {item.about}{end}{usual}",
        asked,
        partial(main, name, item),
        {**item.defaults, **several},
    )


COMMAND = Group(
    "paper",
    "the figures of the paper, corrected, and the questions its reviewers asked, one command each",
    (
        "Make or read the rows of one item, then draw it beside what the paper reports"
        " (Bershatsky et al. 2022, arXiv 2201.13195). Stopped, the same command with the same --out"
        " goes on."
    ),
    "item",
    tuple(make_command(name, item) for name, item in ITEMS.items()),
)
