"""Comparison (a frozen dataclass) and run(): the frontier of a pair, of a task's layers or of a run
made before, as files.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

from sketchvar.analysis import records
from sketchvar.analysis.claim import claim
from sketchvar.analysis.folder import kept_dtype, rows_of
from sketchvar.analysis.frontier.pairs import read_pair
from sketchvar.analysis.frontier.rows import (
    BUDGETS,
    DRAWS,
    ESTIMATORS,
    FRACTIONS,
    frontier,
    of_run,
)
from sketchvar.analysis.loop import layers_at
from sketchvar.analysis.noise.layer import Layer, pair_layer
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.tasks import Options, Task, find_task
from sketchvar.estimators import choices

Progress = Callable[[int, int], object]  # measured steps done, of how many


@dataclass(frozen=True)
class Comparison:
    """Which estimators to compare at equal bytes, and on what: the layers of a ``task`` after each
    number of updates in ``step`` (the task's own points and all layers unless given), the ``pair``
    in a file, or a ``run`` that was made before.

    The training has ``steps`` updates, as its schedule has to know: the task's own, or up to the
    last measured one. ``draws`` stand behind a variance without a closed form: ``DRAWS`` unless
    given for one pair, or for one layer at one step; else none, which leaves such estimators out.
    Raises ValueError for names that are not known and numbers that make no sense.
    """

    task: str = "stdlib-lm"
    options: Options = ()
    pair: str | None = None
    run: str | None = None
    layer: str | None = None
    step: tuple[int, ...] = ()
    steps: int | None = None
    estimators: tuple[str, ...] = tuple(ESTIMATORS)
    budgets: tuple[float, ...] = BUDGETS
    draws: int | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        choices(self.estimators, 1.0)
        if wrong := [b for b in self.budgets if not 0 < b <= 1]:
            raise ValueError(
                f"budgets are fractions of X's bytes, 0 to 1, got {wrong[0]:g}; write 0.125 for"
                " 12.5 %"
            )
        if (self.pair or self.run) and (self.layer or self.step):
            raise ValueError(
                "--layer and --step choose from a --task; leave them out with --pair or --run"
            )
        if self.step and (min(self.step) < 0 or list(self.step) != sorted(set(self.step))):
            raise ValueError(
                "steps must be different and rising from 0, got"
                f" {' '.join(map(str, self.step))}; change --step"
            )
        if self.steps is not None and self.points[-1] > self.steps:
            raise ValueError(
                f"step {self.points[-1]} is not within a training of {self.steps} steps; change"
                " --step or --steps"
            )
        if self.draws is not None and (self.draws < 0 or self.draws == 1):
            raise ValueError(
                f"--draws must be 0, or 2 or more for a standard error, got {self.draws}"
            )
        if self.layer:
            Probe(
                self.make_task().model(), pairs=[self.layer]
            )  # refuses a name that it does not know

    def make_task(self) -> Task:
        """The task. Raises ValueError for one that is not known."""
        return find_task(self.task, self.options)

    @property
    def what(self) -> str:
        """In a word, on what."""
        return Path(self.pair).stem if self.pair else Path(self.run).name if self.run else self.task

    @property
    def points(self) -> tuple[int, ...]:
        """The steps of the task that are measured; step 0 alone where there is no task."""
        return (0,) if self.pair or self.run else self.step or self.make_task().measure_at

    @property
    def total(self) -> int:
        """Updates of the whole training."""
        return max(self.make_task().steps, self.points[-1]) if self.steps is None else self.steps

    @property
    def fractions(self) -> list[float]:
        """Those of the figure and those of the table."""
        return sorted({*FRACTIONS, *self.budgets}, reverse=True)


def run(comparison: Comparison, out: Path, progress: Progress | None = None) -> Path:
    """Measure and write frontier.parquet after every measured step, and frontier.json; returns
    ``out``.

    What was measured there before is not measured again. Raises ValueError for a folder that
    cannot be used and for a pair, run or data that cannot be read.
    """
    progress = progress or (lambda done, total: None)
    origin = records.provenance(torch.device(comparison.device))
    source = read_source(comparison)
    if isinstance(source, Task):
        origin |= source.provenance()
    claim(out, "frontier", asdict(comparison), "frontier.json", "options")
    about = {"work": "frontier", "options": asdict(comparison), **origin}
    records.write_json(out / "frontier.json", about)
    file, total = out / "frontier.parquet", len(comparison.points)
    rows = records.read_rows(file) if file.exists() else pd.DataFrame()
    done = list_done(source, rows)
    progress(len(done), total)
    if len(done) < total:
        for i, table in enumerate(measure(comparison, source, done), start=len(done) + 1):
            rows = records.append_rows(rows, table.assign(run=table.get("run", out.name)))
            records.write_rows(file, rows)
            progress(i, total)
    return out


def read_source(comparison: Comparison) -> Task | Layer | pd.DataFrame:
    """What is compared on: the task, its data read, the layer of a pair, or the rows of a run."""
    if comparison.pair:
        device = torch.device(comparison.device)
        return pair_layer(*(t.to(device) for t in read_pair(Path(comparison.pair))))
    if comparison.run:
        rows = rows_of(Path(comparison.run))
        return of_run(rows, kept_dtype(Path(comparison.run), rows))
    task = comparison.make_task()
    task.check()
    return task


def list_done(source: Task | Layer | pd.DataFrame, rows: pd.DataFrame) -> list[int]:
    """The steps that ``rows`` has; where there is no task, step 0 stands for all."""
    if rows.empty:
        return []
    return sorted(set(rows["step"])) if isinstance(source, Task) else [0]


def measure(
    comparison: Comparison, source: Task | Layer | pd.DataFrame, done: list[int]
) -> Iterator[pd.DataFrame]:
    """The frontier, a table for each step that is not ``done``."""
    c = comparison
    if isinstance(source, pd.DataFrame):
        yield source
        return
    if isinstance(source, Layer):
        draws, dtype = DRAWS if c.draws is None else c.draws, source.moments.pair[0].dtype
        yield frontier(source, dtype, c.estimators, c.fractions, draws, c.seed)
        return
    one = bool(c.layer) and len(c.points) == 1
    draws = (DRAWS if one else 0) if c.draws is None else c.draws
    left, device = [step for step in c.points if step not in done], torch.device(c.device)
    for step, layers in layers_at(source, left, device, c.seed, c.layer, c.total):
        new = []
        while layers:  # what closed forms keep of a layer goes with it
            layer = layers.pop(next(iter(layers)))
            new.append(frontier(layer, source.dtype, c.estimators, c.fractions, draws, c.seed))
        yield pd.concat([table.assign(task=c.task, step=step) for table in new], ignore_index=True)
