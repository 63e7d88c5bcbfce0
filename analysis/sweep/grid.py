"""Grid (a frozen dataclass): which cells a study trains, the baselines that a user has anyway among
them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import pandas as pd
import torch

from sketchvar.analysis import meter
from sketchvar.analysis.loop import forward, start
from sketchvar.analysis.meter import Progress
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.sweep.cell import Cell, begin
from sketchvar.analysis.sweep.outcome import PARTNERS
from sketchvar.analysis.tasks import Batch, Options, find_task
from sketchvar.estimators import Choice, choices
from sketchvar.estimators.estimator import check_rate
from sketchvar.estimators.planned import Layers, check_names

MEMORY = ["estimator", "rate", "activations", "exact", "same_memory_batch"]
MEMORY += ["peak", "exact_peak", "same_peak_batch"]


@dataclass(frozen=True)
class Grid:
    """Every estimator × rate × seed of one task, and exact training: plain, under activation
    checkpointing, and on ``fractions`` of the batch. Raises ValueError for names that are not known
    and numbers that make no sense.

    With ``factors`` all is trained at these multiples of the task's learning rate too, so that each
    method can be reported at its own best one (``at_best_rates``), but for checkpointing. With
    ``equal_examples`` the smaller batches of as many bytes are trained for as many examples too,
    which takes more updates.
    ``layers`` is a pattern of the layers that are sketched: unless given, all but those that see
    one row of each example where others see several, as classifier and pooler do. ``plans`` are
    trained beside the estimators, each under the name of "plan:" and its own.
    """

    task: str
    options: Options
    estimators: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: int
    evaluations: int = 10
    fractions: tuple[float, ...] = ()
    layers: str | None = None
    device: str = "cpu"
    threads: int = 1
    plans: tuple[tuple[str, Layers], ...] = ()
    factors: tuple[float, ...] = ()
    equal_examples: bool = False

    def __post_init__(self) -> None:
        if self.steps < 2 or not 1 <= self.evaluations <= self.steps:
            raise ValueError(
                f"training needs 2 steps or more and 1 to {self.steps} evaluations, got"
                f" {self.steps} and {self.evaluations}; change --steps or --evaluations"
            )
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise ValueError(
                f"seeds must be different, got {' '.join(map(str, self.seeds)) or 'none'}"
            )
        find_task(self.task, self.options)
        if any(factor <= 0 for factor in self.factors):
            raise ValueError(f"factors of the learning rate are positive, got {self.factors}")
        if self.factors and len(self.seeds) < 2:
            raise ValueError(
                "to choose a learning rate takes two seeds or more, as a run that had a say in its"
                f" own rate is no measure of it; got {self.seeds}"
            )
        for fraction in self.fractions:
            check_rate(self, fraction)
        for choice in self.choices():
            choice.told()  # refuses an oracle
        check_names(self.plans)

    def choices(self) -> list[Choice]:
        """Every estimator at every rate, but the exact one."""
        found = choices(self.estimators, self.rates)
        return [choice for choice in found if choice.name != "exact"]

    def exact(self, seed: int = 0) -> Cell:
        """The plain exact run of a seed."""
        points = {round(self.steps * i / self.evaluations) for i in range(self.evaluations + 1)}
        batch = find_task(self.task, self.options).batch_size
        cell = Cell(
            self.task,
            self.options,
            "exact",
            1.0,
            batch,
            False,
            seed,
            self.steps,
            tuple(sorted(points)),
        )
        return replace(
            cell,
            layers=self.layers or "*",
            left_out=self.left_out,
            device=self.device,
            threads=self.threads,
        )

    def sketched(self) -> list[Cell]:
        """The cells of one seed that are trained with estimators, alone or by a plan."""
        whole = self.exact()
        alone = [replace(whole, estimator=c.name, rate=c.rate) for c in self.choices()]
        return alone + [
            replace(whole, estimator=f"plan:{name}", plan=plan) for name, plan in self.plans
        ]

    @property
    def left_out(self) -> tuple[str, ...]:
        """The layers that stay exact as no choice of layers was made."""
        return () if self.layers else list_single_rows(self.task, self.options)

    def cells(self, memory: pd.DataFrame) -> list[Cell]:
        """All cells, seed by seed, so that an unfinished sweep has whole seeds. ``memory`` is what
        ``activations`` measured: it says on how many examples exact training holds as many bytes as
        each estimator. Checkpointing computes what exact training does, so one seed tells its time
        and memory.
        """
        whole = self.exact()
        batches = {max(1, round(whole.batch * fraction)) for fraction in self.fractions}
        for name in PARTNERS.values():
            batches |= {int(batch) for batch in memory[name]} if name in memory else set()
        found = [whole]
        found += self.sketched()
        found += [replace(whole, batch=batch) for batch in sorted(batches - {whole.batch})]
        if self.equal_examples and "same_memory_batch" in memory:
            smaller = {int(batch) for batch in memory["same_memory_batch"]} - {whole.batch}
            found += [lengthen(whole, batch) for batch in sorted(smaller)]
        factors = dict.fromkeys((1.0, *self.factors))
        found = [replace(cell, factor=factor) for factor in factors for cell in found]
        cells = [replace(cell, seed=seed) for seed in self.seeds for cell in found]
        return [*cells[: len(found)], replace(cells[0], checkpointing=True), *cells[len(found) :]]

    def activations(self, progress: Progress | None = None) -> pd.DataFrame:
        """One row per estimator and rate: bytes that a forward pass leaves for backward, those of
        the exact pass, and the most examples on which exact training leaves no more; the same for
        the peak of a whole update, with weights and optimizer (columns ``MEMORY``). Checkpointed:
        "checkpointing". ``progress`` is called before the first row and after every one.
        """
        whole = self.exact()
        cells = self.sketched()
        cells.append(replace(whole, checkpointing=True))
        if progress is not None:
            progress(0, len(cells))
        plain = [cache(partial(measure, whole)) for measure in (held, find_peak)]
        lines: list[tuple[Any, ...]] = []
        for cell in cells:
            sizes: list[int] = []
            for measure, exact in zip((held, find_peak), plain, strict=True):
                kept = measure(cell, whole.batch)
                least = whole.batch if cell.checkpointing else fit(exact, kept, whole.batch)
                sizes += [kept, exact(whole.batch), least]
            name = "checkpointing" if cell.checkpointing else cell.estimator
            lines.append((name, cell.rate, *sizes))
            if progress is not None:
                progress(len(lines), len(cells))
        return pd.DataFrame(lines, columns=MEMORY)


@cache
def list_single_rows(task: str, options: Options) -> tuple[str, ...]:
    """List the layers of a task that see one row of each example where others see several."""
    training = start(find_task(task, options), 1, torch.device("cpu"), 0)
    with Probe(training.model, by_example=False) as probe:
        training.gradient(0, training.batch(0))
    each = {name: layer.moments.n / layer.examples for name, layer in probe.read().items()}
    if all(rows <= 1 for rows in each.values()):
        return ()
    return tuple(name for name, rows in each.items() if rows <= 1)


def lengthen(cell: Cell, batch: int) -> Cell:
    """The same on a smaller batch, for as many examples."""
    times = cell.batch / batch
    points = tuple(round(point * times) for point in cell.evaluate_at)
    return replace(
        cell, batch=batch, steps=round(cell.steps * times), evaluate_at=points, longer=True
    )


def fit(size: Callable[[int], int], most: int, batch: int) -> int:
    """The most examples, up to ``batch``, of which the ``size`` is no more than ``most`` bytes;
    one, if of none.
    """
    low, high = 1, batch
    while low < high:  # bytes grow with examples
        middle = math.ceil((low + high) / 2)
        low, high = (middle, high) if size(middle) <= most else (low, middle - 1)
    return low


def find_peak(cell: Cell, examples: int) -> int:
    """The most bytes held in the second update of a cell, the first that meets an optimizer's
    state, on the first ``examples`` of its first batch.
    """
    training = begin(cell)
    batch = take_first(training.batch(0), examples)
    training.advance(0, batch)
    state = meter.resident(training.model, training.optimizer)
    return state + meter.peak(partial(training.advance, 1, batch), training.device)


def held(cell: Cell, examples: int) -> int:
    """Bytes that the forward pass of a cell, in the precision that trains, leaves for backward, on
    the first ``examples`` of its first batch.
    """
    training = begin(cell)
    batch = take_first(training.batch(0), examples)
    work = partial(forward, training.task, training.model, batch, training.device)
    work()  # the first pass makes what later ones find
    return meter.held(work, training.device)


def take_first(batch: Batch, examples: int) -> Batch:
    """Take the first examples of a batch."""
    inputs, targets = batch
    if isinstance(inputs, dict):
        return {name: t[:examples] for name, t in inputs.items()}, targets[:examples]
    return inputs[:examples], targets[:examples]
