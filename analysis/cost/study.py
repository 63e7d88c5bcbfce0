"""CostStudy and measure(): train a task and write what every estimator's noise costs on the way."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sketchvar.analysis.cost.measure import CURVATURES, Costs, cost
from sketchvar.analysis.cost.points import (
    Loss,
    Points,
    Progress,
    Say,
    fresh,
    say_memory,
    stops,
    write_costs,
)
from sketchvar.analysis.loop import Training
from sketchvar.analysis.noise.draw import ENOUGH
from sketchvar.analysis.noise.horizon import check_horizon
from sketchvar.estimators import choices
from sketchvar.estimators.catalog import check_known
from sketchvar.estimators.seeds import fold


@dataclass(frozen=True)
class CostStudy(Points):
    """What to train, where to measure, and what: the cost of its estimators over ``horizons``, for
    ever too unless that is one step alone; 0 stands for the steps that are left.

    ``coherent`` are those that are also drawn with one seed for all layers; ``layers`` measures
    every layer by itself too; ``curved`` batches have the curvature of every draw. ``agree``: other
    curvatures to measure one step by. Without ``coherence`` only the minibatch's is measured, and
    that of ``coherent``.
    """

    work: ClassVar[str] = "cost"
    horizons: tuple[int, ...] = (1, 10)
    draws: int = 24
    curvature: str = "gauss-newton"
    nodes: int | None = None
    coherent: tuple[str, ...] = ()
    layers: bool = False
    curved: int = 1
    coherence: bool = False
    agree: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (self.curvature, *self.agree):
            check_known("curvature", name, CURVATURES)
        choices(self.coherent, self.rates)
        for horizon in self.horizons:
            check_horizon(horizon or 1)
        if self.draws < 1:
            raise ValueError(f"--draws must be 1 or more, got {self.draws}")


def measure(
    study: CostStudy,
    out: Path,
    resume: bool = False,
    progress: Progress | None = None,
    jobs: int = 1,
    say: Say | None = None,
) -> Path:
    """Train, and at every measured step write cost.parquet, cost-layers.parquet and
    coherence.parquet to ``out``, which is returned.

    ``progress`` is called with ("train", updates) and ("draw", draws of all measured steps). A run
    that was stopped goes on with ``resume=True`` from its last measured step, with any number of
    ``jobs``, which make so many draws at a time. ``say`` is told of the memory that draws need,
    before the first.

    Raises ValueError for a folder that cannot be used, FloatingPointError for what is not finite.
    """
    for step, training in stops(study, out, "coherence.parquet", resume, progress):
        number = study.measure_at.index(step)

        def drawn(done: int, total: int, before: int = number) -> None:
            if progress is not None:
                progress("draw", before * total + done)

        if number == 0:
            say_memory(say, training.model, jobs)
        found = measure_at(study, training, step, drawn, jobs)
        write_costs(out, step, found, {"run": study.name, "task": study.task})
    return out


def measure_at(
    study: CostStudy,
    training: Training,
    step: int,
    progress: Callable[[int, int], object],
    jobs: int = 1,
) -> Costs:
    """The costs at one step of a training."""
    asked = {horizon or study.steps - step for horizon in study.horizons} - {0}
    horizons = sorted({1.0, *map(float, asked)} | ({math.inf} if asked != {1} else set()))
    return cost(
        training.model,
        Loss(training.task, training.device),
        fresh(training, step, "cost"),
        study.choices(),
        training.optimizer,
        horizons,
        draws=study.draws,
        curvature=study.curvature,
        layers=study.layers,
        curved=study.curved,
        one_seed=choices(study.coherent, study.rates),
        schedule=study.schedule(step),
        nodes=study.nodes,
        spectra=max(ENOUGH, study.draws // 6),  # most of the time; one step needs more draws
        seed=fold(study.seed, "cost", step),
        progress=progress,
        signal=False,
        coherence=study.coherence,
        agree=study.agree,
        jobs=jobs,
    )
