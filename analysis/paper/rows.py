"""How the rows of the paper's items are made where no other room makes them: the frontier of one
step, sketches averaged, a sweep for every block, throughput.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

from sketchvar.analysis import records
from sketchvar.analysis.claim import record
from sketchvar.analysis.frontier.rows import frontier
from sketchvar.analysis.loop import layers_at
from sketchvar.analysis.meter import Progress
from sketchvar.analysis.paper import probed
from sketchvar.analysis.paper.averaging import average_sketches
from sketchvar.analysis.paper.throughput import measure_throughput
from sketchvar.analysis.paper.variance import find_middle
from sketchvar.analysis.probe import Layer
from sketchvar.analysis.tasks import Options, Task, find_task
from sketchvar.estimators import choices


@dataclass(frozen=True)
class Step(ABC):
    """One step of a task's training, ``steps`` updates after its start, and what is measured of the
    gradient there. Raises ValueError for names that are not known and numbers that make no sense.
    """

    task: str
    options: Options
    steps: int
    estimators: tuple[str, ...]
    device: str
    seed: int

    @abstractmethod
    def tables(self, task: Task, progress: Progress) -> Iterator[pd.DataFrame]:
        """Measure, and yield the table as it grows."""

    def make_task(self) -> Task:
        """Make the task."""
        return find_task(self.task, self.options)

    def layers(self, task: Task) -> dict[str, Layer]:
        """Train up to the step, and return the layers with X and Y."""
        ((_, found),) = layers_at(task, [self.steps], torch.device(self.device), self.seed)
        return found


@dataclass(frozen=True)
class Axis(Step):
    """Every layer's frontier at that step, at ``rates`` of X's bytes."""

    rates: tuple[float, ...]
    draws: int

    def __post_init__(self) -> None:
        check(self)

    def tables(self, task: Task, progress: Progress) -> Iterator[pd.DataFrame]:
        layers, parts = self.layers(task), []
        for i, layer in enumerate(layers.values(), start=1):
            rows = frontier(layer, task.dtype, self.estimators, self.rates, self.draws, self.seed)
            parts.append(rows)
            progress(i, len(layers))
            yield pd.concat(parts).assign(task=self.task, step=self.steps)


@dataclass(frozen=True)
class Averaging(Step):
    """``counts`` sketches of ``rate`` averaged, on one layer (None: one in the middle)."""

    rate: float
    counts: tuple[int, ...]
    draws: int
    layer: str | None

    def __post_init__(self) -> None:
        check(self)
        if max(self.counts) * self.rate > 1:
            raise ValueError(
                f"{max(self.counts)} sketches of rate {self.rate:g} keep more than X; give fewer,"
                " or a smaller rate"
            )

    def tables(self, task: Task, progress: Progress) -> Iterator[pd.DataFrame]:
        layers, parts = self.layers(task), []
        layer = layers[self.layer or find_middle(pd.DataFrame({"layer": list(layers)}))]
        for i, name in enumerate(self.estimators, start=1):
            rows = average_sketches(layer, [name], self.rate, self.counts, self.draws, self.seed)
            parts.append(rows)
            progress(i, len(self.estimators))
            yield pd.concat(parts)


@dataclass(frozen=True)
class Throughput(Step):
    """Whole steps, timed in ``repeats`` pairs."""

    rates: tuple[float, ...]
    repeats: int

    def __post_init__(self) -> None:
        check(self)

    def tables(self, task: Task, progress: Progress) -> Iterator[pd.DataFrame]:
        for rows in measure_throughput(
            self.task, task, self.estimators, self.rates, self.device, self.repeats
        ):
            progress(len(rows), len(self.estimators) * len(self.rates))
            yield rows


def check(step: Step) -> None:
    """Raise ValueError for a step that cannot be measured."""
    step.make_task()
    if step.steps < 0:
        raise ValueError(f"--steps must be 0 or more, got {step.steps}")
    choices(step.estimators, 1.0)


def make(step: Step, out: Path, progress: Progress | None = None) -> Path:
    """Measure and write rows.parquet as it grows, and run.json; returns ``out``.

    What was finished there before is left as it is. Raises ValueError for a folder that cannot be
    used.
    """
    task = step.make_task()
    origin = records.provenance(torch.device(step.device)) | task.provenance()
    tables = step.tables(task, progress or (lambda done, total: None))
    work = f"paper {type(step).__name__.lower()}"
    return record(out, work, asdict(step), origin, "rows.parquet", tables)


def list_blocks(task: Task) -> list[int]:
    """The numbers of a model's blocks."""
    names = [name for name, _ in task.model().named_modules()]
    return sorted({int(b) for name in names if (b := probed.find_block(name)) == b})


def write_damage(out: Path, sweep: Path, block: int) -> None:
    """Add to rows.parquet what came of the runs in which one block was sketched, those of a
    sweep's summary; a block that is there already is written anew.
    """
    file = out / "rows.parquet"
    before = records.read_rows(file) if file.exists() else pd.DataFrame({"block": []})
    new = records.read_rows(sweep / "summary.parquet").assign(block=block)
    records.write_rows(file, records.append_rows(before[before["block"] != block], new))
