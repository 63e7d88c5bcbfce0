"""The points of a training at which it stands still: trained on to each, resumed from the last."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch
from torch import Tensor, nn

from sketchvar.analysis import records
from sketchvar.analysis.cost.measure import Costs, needed_bytes
from sketchvar.analysis.folder import Folder
from sketchvar.analysis.loop import Training, forward, start
from sketchvar.analysis.noise.cost import Draws
from sketchvar.analysis.noise.horizon import Dynamics
from sketchvar.analysis.noise.metric import steps_of
from sketchvar.analysis.tasks import Batch, Options, Task, find_task, move
from sketchvar.estimators import Choice, choices, sketch_linears
from sketchvar.estimators.planned import Layers, Planned, check_names
from sketchvar.estimators.seeds import fold

Progress = Callable[[str, int], object]
Say = Callable[[str], object]


@dataclass(frozen=True)
class Points:
    """A task, trained for ``steps`` as its schedule knows them, and looked at after ``measure_at``
    updates: at ``estimators``, at every one of ``rates`` where they take one, and at ``plans``.

    Raises ValueError for names that are not known and numbers that make no sense. Step 0 is none of
    them: an optimizer has no state there, so that its steps are not known.
    """

    work: ClassVar[str]
    task: str
    steps: int
    measure_at: tuple[int, ...]
    device: str
    seed: int
    options: Options
    estimators: tuple[str, ...] = ()
    rates: tuple[float, ...] = ()
    plans: tuple[tuple[str, Layers], ...] = ()

    def __post_init__(self) -> None:
        find_task(self.task, self.options)
        self.choices()
        points = " ".join(map(str, self.measure_at)) or "none"
        if not self.measure_at or list(self.measure_at) != sorted(set(self.measure_at)):
            raise ValueError(
                f"measure points must be different and rising, got {points}; change --measure-at"
            )
        if self.measure_at[0] < 1 or self.measure_at[-1] > self.steps:
            raise ValueError(
                f"measure points must lie within 1..{self.steps}, got {points}: at step 0 the"
                " optimizer has no state yet; change --measure-at or --steps"
            )

    @property
    def name(self) -> str:
        """The run's id: the task and a fingerprint of every field."""
        fields = {n: v for n, v in asdict(self).items() if v or n != "plans"}
        return f"{self.work}-{self.task.replace('/', '-')}-{records.fingerprint(fields)}"

    def choices(self) -> list[Choice]:
        """Every estimator at every rate where it takes one, and every plan. Raises ValueError for
        spellings that cannot be read, and for two plans of one name.
        """
        check_names(self.plans)
        found = choices(self.estimators, self.rates)
        return found + [Planned.read(name, layers) for name, layers in self.plans]

    def schedule(self, step: int) -> tuple[float, ...]:
        """The learning rates of the steps that are left over that of the next; empty at the end."""
        task = find_task(self.task, self.options)
        now = task.rate_at(step, self.steps)
        return tuple(task.rate_at(s, self.steps) / (now or 1.0) for s in range(step, self.steps))


@dataclass(frozen=True)
class Loss:
    """A task's loss in the precision that trains: one that other processes can be sent."""

    task: Task
    device: torch.device

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        return forward(self.task, model, batch, self.device)


def fresh(training: Training, step: int, what: str) -> Iterator[Batch]:
    """Batches that are independent of each other and of those that train: draws of ``what``."""
    number = 0
    while True:
        seed = fold(training.seed, what, step, number)
        yield move(training.task.batch(step, seed), training.device)
        number += 1


def stops(
    points: Points,
    out: Path,
    last: str,
    resume: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[int, Training]]:
    """Train, and stop at every point; the learning rate is that of the step to come.

    ``out`` is claimed for these points and described, and goes on from the last point at which it
    stopped before; points that its table ``last``, which is written last of all, has are passed by,
    and nothing is left to do where it is finished. Raises ValueError for a folder that cannot be
    used, FloatingPointError for a loss that is not finite.
    """
    folder, device = Folder(out), torch.device(points.device)
    task = find_task(points.task, points.options)
    origin = records.provenance(device) | task.provenance()
    for _, layers in points.plans:  # one of another model is an error before the folder is claimed
        sketch_linears(task.model(), Planned.read("", layers).told())
    folder.claim(points, resume)
    if folder.provenance.exists() and bool(records.read_json(folder.provenance)["finished"]):
        return
    folder.describe(points, origin, finished=False)
    training = start(task, points.steps, device, points.seed)
    for step in range(restore(folder, training), points.measure_at[-1] + 1):
        if progress is not None:
            progress("train", step)
        if step in points.measure_at:
            folder.save(step, training.model, training.optimizer)
            for group in training.optimizer.param_groups:
                group["lr"] = task.rate_at(min(step, points.steps - 1), points.steps)
            if not known(out / last, step):
                yield step, training
        if step < points.measure_at[-1]:
            training.advance(step)
    folder.describe(points, origin, finished=True)
    folder.checkpoint.unlink(missing_ok=True)


def say_memory(say: Say | None, model: nn.Module, jobs: int, signals: int = 0) -> None:
    """Say what a cost will need, before it is measured."""
    if say is not None:
        size = needed_bytes(model, signals) / 1e6
        each = f", in each of {jobs} processes" if jobs > 1 else ""
        say(f"Holding up to {size:,.0f} MB beside three training steps{each}")


def restore(folder: Folder, training: Training) -> int:
    """The step of the checkpoint, which ``training`` is brought to; 0 where there is none."""
    if not folder.checkpoint.exists():
        return 0
    try:
        state = torch.load(folder.checkpoint, map_location=training.device, weights_only=True)
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
    except Exception as error:
        raise ValueError(
            f"{folder.checkpoint} is not readable ({error}); remove it to train from the start"
        ) from None
    return int(state["step"])


def known(path: Path, step: int) -> bool:
    """Whether a table has rows of this step."""
    return path.exists() and step in set(records.read_rows(path)["step"])


def write_step(path: Path, step: int, rows: pd.DataFrame) -> None:
    """Put the rows of one step into a table, in place of those that it has of it."""
    if not len(rows):
        return
    before = records.read_rows(path) if path.exists() else pd.DataFrame({"step": []})
    rows.insert(0, "step", step)
    new = records.add_flags(rows)  # as those that were read have them
    records.write_rows(path, records.append_rows(before[before["step"] != step], new))


def write_costs(out: Path, step: int, costs: Costs, about: dict[str, str]) -> None:
    """Put what one step cost into cost.parquet, cost-layers.parquet and coherence.parquet, and what
    they are made of into cost-draws.parquet and spectra.parquet; the tables last, so that a step
    that is in them is whole.
    """
    parts = {
        "cost-draws": costs.draws.totals,
        "spectra": costs.draws.spectra,
        "progress": costs.draws.progress,
        "cost-layers": costs.layers,
        "agreement": costs.agreement,
        "cost": costs.table,
        "coherence": costs.coherence,
    }
    for name, rows in parts.items():
        write_step(out / f"{name}.parquet", step, rows.assign(**about))


def read_costs(
    out: Path, step: int, training: Training, schedule: tuple[float, ...]
) -> Costs | None:
    """What ``write_costs`` put there for one step; None where that is not whole."""
    if not known(out / "coherence.parquet", step):
        return None
    parts = []
    for name in ("cost-draws", "spectra", "progress", "cost"):
        path = out / f"{name}.parquet"
        rows = records.read_rows(path) if path.exists() else pd.DataFrame({"step": []})
        parts.append(rows[rows["step"] == step].reset_index(drop=True))
    totals, spectra, progress, table = parts
    steps = steps_of(training.optimizer, training.model.parameters())
    columns = ["estimator", "rate", "kept_bytes", "share", "family"]
    kept = table[[name for name in columns if name in table]].drop_duplicates()
    return Costs(
        Draws(totals, spectra, pd.DataFrame(), progress, pd.DataFrame()),
        Dynamics(steps.momentum, steps.nesterov, schedule),
        tuple(sorted(set(table["horizon"]))),
        kept,
        pd.DataFrame(),
    )
