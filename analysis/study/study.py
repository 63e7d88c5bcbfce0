"""Study (a frozen dataclass) and run(): train a task, measure at chosen steps, write rows as they
come.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from sketchvar.analysis import records
from sketchvar.analysis.folder import LOSSES, Folder
from sketchvar.analysis.noise.table import COLUMNS, choose_comparable, compare
from sketchvar.analysis.probe import Layer, Probe
from sketchvar.analysis.tasks import Batch, Options, Task, moved, named
from sketchvar.estimators import Choice, empirical
from sketchvar.estimators.choice import Flags
from sketchvar.estimators.seeds import fold

DRAWS = 32  # repeated draws behind each point that is set beside a closed form


@dataclass(frozen=True)
class Study:
    """What to train, when to measure, what to compare. Step s is the gradient after s updates,
    0 ≤ s ≤ steps.

    ``options`` are fields of the task that differ from its defaults, as in (("pretrained",
    "minilm"),).
    Raises ValueError for names that are not known and numbers that make no sense.
    """

    task: str
    steps: int
    measure_at: tuple[int, ...]
    estimators: tuple[str, ...]
    rates: tuple[float, ...]
    device: str = "cpu"
    seed: int = 0
    options: Options = ()

    def __post_init__(self) -> None:
        named(self.task, self.options)
        self.choices()
        if not self.estimators or not self.rates:
            raise ValueError("a study needs at least one estimator and one rate, got none")
        if self.steps < 0:
            raise ValueError(f"steps must be 0 or more, got {self.steps}")
        points = " ".join(map(str, self.measure_at)) or "none"
        if not self.measure_at or list(self.measure_at) != sorted(set(self.measure_at)):
            raise ValueError(
                f"measure points must be different and rising, got {points}; change --measure-at"
            )
        if self.measure_at[0] < 0 or self.measure_at[-1] > self.steps:
            raise ValueError(
                f"measure points must lie within 0..{self.steps}, got {points}; change --measure-at"
                " or --steps"
            )

    def choices(self) -> list[Choice]:
        """Every estimator at every rate."""
        return choose_comparable(self.estimators, self.rates)

    @property
    def name(self) -> str:
        """The run's id: the task and a fingerprint of every field, so that equal studies have equal
        ids.
        """
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.task.replace('/', '-')}-{digest[:10]}"


def run(
    study: Study,
    out: Path,
    resume: bool = False,
    progress: Callable[[int, float], object] | None = None,
) -> Path:
    """Train, measure, and write rows to ``out`` after every measured step; returns ``out``.

    ``progress`` is called with (updates done, loss) after every step. A run that was stopped at any
    moment goes on with ``resume=True`` from its last measured step, to the rows that an
    uninterrupted run gives: to the last digit under the same number of threads, which run.json
    names. Raises ValueError for a folder that cannot be used, FloatingPointError for a loss that is
    not finite (rows so far are kept).
    """
    folder, task, device = Folder(out), named(study.task, study.options), torch.device(study.device)
    origin = (
        records.provenance(device) | task.provenance()
    )  # reads the data: what is wrong with it shows first
    folder.claim(study, resume)
    folder.describe(study, origin, finished=False)

    torch.manual_seed(fold(study.seed, "model"))
    model = task.model().to(device)
    optimizer = task.optimizer(model)
    start, rows, losses = folder.restore(model, optimizer, device)
    names = list(Probe(model).watched)
    drawn = names[len(names) // 2]
    whole = names if any(choice.needs_pair for choice in study.choices()) else []

    for step in range(start, study.steps + 1):
        torch.manual_seed(
            fold(study.seed, "step", step)
        )  # dropout and the like: a function of the step alone
        batch = moved(task.batch(step, study.seed), device)
        last = step == study.measure_at[-1]
        probe = None
        if step in study.measure_at:
            probe = Probe(model, pairs=whole or ([drawn] if last else []))
        optimizer.zero_grad(set_to_none=True)
        with probe or nullcontext():
            loss = backward(task, model, batch, device)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {step}; the {len(rows)} rows measured before it are in"
                f" {folder.rows}"
            )
        if probe is not None:
            layers = probe.read()
            if last:
                records.write_rows(folder.coverage, probe.coverage())
                records.write_rows(
                    folder.draws,
                    repeated_draws(layers[drawn], study).assign(run=study.name, step=step),
                )
            table = compare(layers.values(), study.choices(), dtype=dtype_of(task))
            rows = joined(rows, table.assign(run=study.name, step=step)[COLUMNS])
            with in_precision(task, device):
                scores = task.validate(model, device)
            losses = joined(losses, pd.DataFrame([(step, loss, *scores)], columns=LOSSES))
            records.write_rows(folder.rows, rows)
            records.write_rows(folder.losses, losses)
        if step < study.steps:
            update(optimizer, task.rate_at(step, study.steps))
        if probe is not None:
            folder.save(step + 1, model, optimizer)
        if progress is not None:
            progress(step, loss)
    folder.describe(study, origin, finished=True)
    return out


def layers_at(
    task: Task, steps: Sequence[int], device: torch.device, seed: int, layer: str | None = None
) -> Iterator[tuple[int, dict[str, Layer]]]:
    """Train as ``run`` does, on the same numbers, and yield at each of ``steps`` (rising) the
    layers with X and Y kept.

    All layers, or the one called ``layer``. Raises ValueError, before training, for an unknown
    name.
    """
    torch.manual_seed(fold(seed, "model"))
    model = task.model().to(device)
    optimizer = task.optimizer(model)
    names = [layer] if layer else list(Probe(model).watched)
    Probe(model, pairs=names)
    for step in range(steps[-1] + 1):
        torch.manual_seed(fold(seed, "step", step))
        optimizer.zero_grad(set_to_none=True)
        probe = Probe(model, pairs=names) if step in steps else None
        with probe or nullcontext():
            loss = backward(task, model, moved(task.batch(step, seed), device), device)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {step}; what was measured before it is kept"
            )
        if probe is not None:
            yield step, {name: read for name, read in probe.read().items() if name in names}
        update(optimizer, task.rate_at(step, max(task.steps, steps[-1])))


def joined(before: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Two tables, one below the other."""
    return pd.concat([before, new], ignore_index=True) if len(before) else new


def update(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """One update at this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()


def backward(task: Task, model: nn.Module, batch: Batch, device: torch.device) -> float:
    """One forward and backward pass in the task's precision; returns the loss."""
    loss = forward(task, model, batch, device)
    loss.backward()
    return loss.item()


def forward(task: Task, model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """The loss, computed in the task's precision."""
    with in_precision(task, device):
        return task.loss(model, batch)


def in_precision(task: Task, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products in the task's precision."""
    return (
        torch.autocast(device.type, dtype_of(task))
        if task.precision != "float32"
        else nullcontext()
    )


def dtype_of(task: Task) -> torch.dtype:
    """The dtype in which a layer of this task would keep its input."""
    return getattr(torch, task.precision)


def task_of(run: Path) -> Task:
    """The task that a run trained, with its options. Raises ValueError where its run.json does not
    say.
    """
    path = Folder(run).provenance
    study = records.read_json(path).get("study", {})
    if "task" not in study:
        raise ValueError(f"{path} names no task; give the folder of a run, as in runs/<name>")
    return named(study["task"], tuple((name, value) for name, value in study.get("options", ())))


def repeated_draws(layer: Layer, study: Study) -> pd.DataFrame:
    """Closed form and ``DRAWS`` repeated draws of the variance on one layer's own pair, for every
    choice.
    """
    x, y = layer.moments.pair
    lines: list[tuple[Any, ...]] = []
    for choice in study.choices():
        estimator, seed = choice.told(layer.moments.y_sq), fold(study.seed, "draws", choice.name)
        measured = empirical(estimator, x, y, DRAWS, seed).variance
        numbers = map(float, (estimator.variance(layer.moments), measured.value, measured.stderr))
        what = (layer.name, choice.name, choice.rate)
        lines.append((*what, *numbers, DRAWS, *choice.flags))
    columns = ["layer", "estimator", "rate", "variance", "measured", "stderr", "draws"]
    return pd.DataFrame(lines, columns=[*columns, *Flags._fields])
