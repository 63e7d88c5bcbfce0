"""Study (a frozen dataclass) and run(): train a task, measure at chosen steps, write rows as they
come.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from sketchvar.analysis import records
from sketchvar.analysis.folder import LOSSES, Folder
from sketchvar.analysis.loop import layers_at, start
from sketchvar.analysis.noise.parameters import NOISE_COLUMNS, tabulate_noise
from sketchvar.analysis.noise.table import COLUMNS, choose_comparable, tabulate
from sketchvar.analysis.probe import Layer, Probe
from sketchvar.analysis.probe.ranks import Ranks, world
from sketchvar.analysis.probe.weighing import METRICS, Weigh
from sketchvar.analysis.study.measure import measure_fresh, see
from sketchvar.analysis.tasks import Options, find_task
from sketchvar.estimators import Choice, empirical
from sketchvar.estimators.catalog import check_known
from sketchvar.estimators.choice import Flags
from sketchvar.estimators.seeds import fold

__all__ = ["Study", "layers_at", "run"]
DRAWS = 32  # repeated draws behind each point that is set beside a closed form


@dataclass(frozen=True)
class Study:
    """What to train, when to measure, what to compare. Step s is the gradient after s updates,
    0 ≤ s ≤ steps.

    Numbers are averages over ``batches`` at each measured step: fresh ones, that are not trained
    on, or, of one, the step's own. The training does not depend on them. ``metric`` is one of
    ``METRICS``: variances are measured in that of the optimizer's step too, as it is before it.
    ``options`` are fields of the task that differ from its defaults, as in (("pretrained",
    "minilm"),).
    Raises ValueError for names that are not known and numbers that make no sense.
    """

    work: ClassVar[str] = "run"
    task: str
    steps: int
    measure_at: tuple[int, ...]
    estimators: tuple[str, ...]
    rates: tuple[float, ...]
    device: str = "cpu"
    seed: int = 0
    options: Options = ()
    batches: int = 1
    metric: str | None = None

    def __post_init__(self) -> None:
        find_task(self.task, self.options)
        self.choices()
        if not self.estimators or not self.rates:
            raise ValueError("a study needs at least one estimator and one rate, got none")
        if self.steps < 0:
            raise ValueError(f"steps must be 0 or more, got {self.steps}")
        if self.batches < 1:
            raise ValueError(f"--batches must be 1 or more, got {self.batches}")
        if self.metric is not None:
            check_known("metric", self.metric, METRICS)
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

    def weigh(self, optimizer: torch.optim.Optimizer) -> Weigh | None:
        """The metric of this optimizer's steps, for a probe."""
        return None if self.metric is None else METRICS[self.metric](optimizer)

    def options_of(
        self, weights: Tensor | None, optimizer: torch.optim.Optimizer
    ) -> dict[str, Any]:
        """What a probe is asked for beside X and Y: the errors are exact, as it measures seldom."""
        return {"weights": weights, "metric": self.weigh(optimizer), "exact_errors": True}

    @property
    def name(self) -> str:
        """The run's id: the task and a fingerprint of every field, so that equal studies have equal
        ids.
        """
        return f"{self.task.replace('/', '-')}-{records.fingerprint(asdict(self))}"


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
    names. Where torch.distributed runs, all of its processes train together, by DDP, each on its
    part of every batch, to the rows that one process gives but for rounding and dropout; the first
    writes to ``out``, which all of them have to see. Raises ValueError for a folder that cannot be
    used, FloatingPointError for a loss that is not finite (rows so far are kept).
    """
    folder, task, ranks = Folder(out), find_task(study.task, study.options), Ranks(world())
    device = torch.device(study.device)
    task.check()
    origin = records.provenance(device) | task.provenance() | {"processes": ranks.size}

    def claim() -> None:
        folder.claim(study, resume)
        folder.describe(study, origin, finished=False)

    ranks.hear_first(claim)
    training = start(task, study.steps, device, study.seed, ranks)
    model, optimizer = training.model, training.optimizer
    begin, rows, losses = folder.restore(model, optimizer, device)
    noise = folder.restore_noise(begin)
    names = list(Probe(training.trained).watched)
    drawn = names[len(names) // 2]
    whole = names if any(choice.needs_pair for choice in study.choices()) else []

    for step in range(begin, study.steps + 1):
        last = step == study.measure_at[-1]
        due = step in study.measure_at
        pairs = whole or ([drawn] if last else [])
        try:
            if due and study.batches > 1:
                seeds = [fold(study.seed, "measure", i) for i in range(study.batches)]
                seen = measure_fresh(
                    training, step, seeds, study.choices(), pairs, study.options_of
                )
            batch = training.batch(step)
            alone = due and study.batches == 1
            asked = study.options_of(task.count_tokens(training.part(batch)), optimizer)
            with Probe(training.trained, pairs=pairs, **asked) if alone else nullcontext() as probe:
                loss = training.gradient(step, batch)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"{error}; the {len(rows)} rows measured before it are in {folder.rows}"
            ) from None
        if due:
            if probe is not None:
                seen = see(probe, study.choices(), task.dtype)
            lines = tabulate(seen.batches, study.choices(), task.population)
            table = pd.DataFrame(lines, columns=COLUMNS[2:])
            rows = records.append_rows(rows, table.assign(run=study.name, step=step)[COLUMNS])
        if due and ranks.first:
            if last:
                records.write_rows(folder.coverage, seen.coverage)
                records.write_rows(
                    folder.draws,
                    draw_repeatedly(seen.layers[drawn], study).assign(run=study.name, step=step),
                )
            whole_model = tabulate_noise(seen.gradients, task.population)
            told = pd.DataFrame(whole_model, columns=NOISE_COLUMNS[2:])
            noise = records.append_rows(noise, told.assign(run=study.name, step=step))
            measured = pd.DataFrame([(step, loss, *training.validate())], columns=LOSSES)
            losses = records.append_rows(losses, measured)
            if len(noise):  # on several processes there is none
                records.write_rows(folder.noise, noise[NOISE_COLUMNS])
            records.write_rows(folder.rows, rows)
            records.write_rows(folder.losses, losses)
        if step < study.steps:
            training.update(step)
        if due and ranks.first:
            folder.save(step + 1, model, optimizer)
        if progress is not None:
            progress(step, loss)
    if ranks.first:
        folder.describe(study, origin, finished=True)
    return out


def draw_repeatedly(layer: Layer, study: Study) -> pd.DataFrame:
    """Draw the variance on one layer's own pair ``DRAWS`` times, beside the closed form, for every
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
