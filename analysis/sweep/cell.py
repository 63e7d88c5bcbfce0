"""Cell (a frozen dataclass): one training run. train(): its losses, metric, time, memory and ratio,
step by step.
"""

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import nn

from sketchvar.analysis import meter, noise, records
from sketchvar.analysis.loop import Training, checkpoint_blocks, start
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.tasks import Batch, Options, Task, find_task
from sketchvar.estimators import Estimator, parse, sketch_linears, unsketch
from sketchvar.estimators.choice import Flags, choose
from sketchvar.estimators.layers.convert import select
from sketchvar.estimators.planned import Layers, Planned

MEASURED = ["step", "train", "validation", "metric", "ratio", "ratio_median", "seconds"]
COLUMNS = ["cell", "task", "estimator", "rate", "batch", "checkpointing", "layers", "seed"]
COLUMNS += ["factor", "longer"]
COLUMNS += [*MEASURED, "peak", "device", "hardware", "threads", "commit", "torch", *Flags._fields]
TIMED = ["seconds", "peak"]  # the columns that another run need not repeat to the last digit


@dataclass(frozen=True)
class Cell:
    """One training run: a task with these options, ``batch`` examples a step, its linear layers
    under ``estimator``.

    ``estimator`` is a spelling, without the rate where it takes one ("gaussian", "rounding:2");
    ``rate`` is 1 where it takes none. ``layers`` is a pattern of the layers it is given to, but for
    those ``left_out``. Where there is a ``plan``, it says what each layer trains with instead, and
    ``estimator`` is its name. ``factor`` is of the task's learning rate. ``longer`` says that
    ``steps`` are more than those of the runs beside it, for as many examples on a smaller batch.
    ``threads`` are torch's: sums round differently under another number. Equal cells give equal
    rows but for ``TIMED``.
    """

    task: str
    options: Options
    estimator: str
    rate: float
    batch: int
    checkpointing: bool
    seed: int
    steps: int
    evaluate_at: tuple[int, ...]
    layers: str = "*"
    left_out: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int = 1
    plan: Layers = ()
    factor: float = 1.0
    longer: bool = False

    def choose(self, names: Collection[str]) -> dict[str, Estimator]:
        """Choose an estimator for each of these layers; those that are none of the cell's have
        none. Raises ValueError for a spelling that cannot be read.
        """
        if not self.plan:
            chosen = set(select(self.layers, names)) - set(self.left_out)
            return {name: parse(self.estimator, self.rate) for name in names if name in chosen}
        return {name: parse(text) for name, text in self.plan if name in names}

    @property
    def flags(self) -> Flags:
        """What tables say of its estimators."""
        if not self.plan:
            return choose(self.estimator, self.rate).flags
        return Planned.read(self.estimator, self.plan).flags

    def make_task(self) -> Task:
        """Make the task with the cell's options and batch. Raises ValueError for what it does not
        have.
        """
        options: Options = (*self.options, ("batch_size", self.batch))
        task = find_task(self.task, options)
        if self.factor == 1:
            return task
        rate = self.factor * task.learning_rate
        return find_task(self.task, (*options, ("learning_rate", rate)))

    @property
    def name(self) -> str:
        """The cell's id, fit for a file: what it is, and a fingerprint of every field."""
        # fields that came later are left out where they are unused: older cells keep their names
        later = {"plan": (), "factor": 1.0, "longer": False}
        fields = {n: v for n, v in asdict(self).items() if n not in later or v != later[n]}
        words = [
            self.task,
            self.estimator,
            f"{self.rate:g}",
            f"batch{self.batch}",
            *([f"x{self.factor:g}"] if self.factor != 1 else []),
            *(["longer"] if self.longer else []),
            f"seed{self.seed}",
            records.fingerprint(fields),
        ]
        return "".join(c if c.isalnum() or c in "-." else "_" for c in "-".join(words))


def train(cell: Cell) -> pd.DataFrame:
    """One row per evaluated step: after ``step`` updates, ``train`` is the mean loss of the updates
    since the row before, ``validation`` and ``metric`` are of the held-out examples, ``seconds`` is
    the time of all updates so far (CPU time of the process, or on a GPU wall time), ``peak`` the
    most bytes the allocator held in one update.

    ``ratio`` is what the estimator adds to the noise of this step's batch: over all its layers,
    summed variance / summed minibatch variance (unit: example); ``ratio_median`` is the median over
    layers. NaN without a closed form.
    Raises FloatingPointError for a loss that is not finite, ValueError for a cell that cannot be
    trained.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(cell.threads)
    try:
        training = begin(cell)
        lines, peak = follow(cell, training)
        origin = records.provenance(training.device)
    except FloatingPointError as error:
        raise FloatingPointError(f"{error} of {cell.name}") from None
    finally:
        torch.set_num_threads(before)
    rows = pd.DataFrame(lines, columns=MEASURED)
    kept = {name: origin[name] for name in ("device", "hardware", "threads", "commit", "torch")}
    fields = {
        name: getattr(cell, name) for name in COLUMNS if hasattr(cell, name) and name not in kept
    }
    flags = cell.flags._asdict()
    return rows.assign(cell=cell.name, peak=peak, **fields, **kept, **flags)[COLUMNS]


def begin(cell: Cell) -> Training:
    """Build the model that a cell trains, its layers sketched and its blocks checkpointed."""
    training = start(cell.make_task(), cell.steps, torch.device(cell.device), cell.seed)
    if cell.checkpointing:
        checkpoint_blocks(training.model)
    convert(training.model, cell)
    return training


def follow(cell: Cell, training: Training) -> tuple[list[tuple[float, ...]], int]:
    """Train; returns a line (step, train, validation, metric, ratio, ratio_median, seconds) for
    every evaluated step, and the peak.
    """
    lines: list[tuple[float, ...]] = []
    losses, seconds, peak = [math.nan], 0.0, 0
    for step in range(cell.steps + 1):
        batch = training.batch(step)
        if step in cell.evaluate_at:
            ratios = measure_noise(training, step, batch, cell)
            lines.append((step, sum(losses) / len(losses), *training.validate(), *ratios, seconds))
            losses.clear()
        if step == cell.steps:
            break

        def advance(step: int = step, batch: Batch = batch) -> None:
            losses.append(training.advance(step, batch))

        if step == 1:  # the second update is the first that meets an optimizer's state
            state = meter.resident(training.model, training.optimizer)
            peak = state + meter.peak(advance, training.device)
        else:
            seconds += meter.seconds(advance, training.device)
    # the update whose memory is measured is slower than others, which stand for it
    share = cell.steps / max(cell.steps - 1, 1)
    return [(*line, took * (share if line[0] > 1 else 1)) for *line, took in lines], peak


def convert(model: nn.Module, cell: Cell) -> None:
    """Give the cell's layers their estimators; an exact step trains the plain model."""
    if cell.estimator == "exact":
        return
    if cell.plan:
        chosen = {name: parse(text) for name, text in cell.plan if text != "exact"}
        done = sketch_linears(model, chosen)
        if why := {name: done.skipped[name] for name in chosen if name in done.skipped}:
            raise ValueError(f"{cell.estimator} cannot be followed in {cell.task}: {why}")
        return
    estimator = parse(cell.estimator, cell.rate)
    done = sketch_linears(model, estimator, include=cell.layers, exclude=cell.left_out)
    if not done.converted:
        raise ValueError(
            f"no layer of {cell.task} matches {cell.layers!r} and can be sketched:\n{done}"
        )


def measure_noise(training: Training, step: int, batch: Batch, cell: Cell) -> tuple[float, float]:
    """Total and median ratio of the variance of the cell's estimators to the minibatch's, at the
    exact gradient of this batch.
    """
    if cell.estimator == "exact":
        return 0.0, 0.0
    model = training.model
    unsketch(model)
    chosen = cell.choose(list(Probe(model).watched))
    if any(each.traits.no_closed_form for each in chosen.values()):
        convert(model, cell)
        return math.nan, math.nan
    pairs = [name for name, each in chosen.items() if each.traits.needs_pair]
    with Probe(model, pairs=pairs, parameters=False) as probe:
        training.gradient(step, batch)
    model.zero_grad(set_to_none=True)
    measured = probe.read().items()
    layers = {n: layer for n, layer in measured if n in chosen and layer.example_sq is not None}
    convert(model, cell)
    if not layers:
        return math.nan, math.nan
    added = torch.stack([chosen[n].variance(layer.moments) for n, layer in layers.items()])
    drawn = torch.stack(
        [noise.by_example(each.example_sq, each.moments.C) for each in layers.values()]  # type: ignore[arg-type]
    )
    return (added.sum() / drawn.sum()).item(), (added / drawn).median().item()
