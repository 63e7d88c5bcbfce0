"""ForkStudy and branch(): train a task, let copies go on from it, and set where they end beside
what was predicted.
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.cost.effective import beside
from sketchvar.analysis.cost.fork import FACTORS, FRACTIONS, check_numbers, forks
from sketchvar.analysis.cost.measure import Costs, cost
from sketchvar.analysis.cost.points import (
    Loss,
    Points,
    Progress,
    Say,
    fresh,
    read_costs,
    say_memory,
    stops,
    write_costs,
    write_step,
)
from sketchvar.analysis.loop import Training
from sketchvar.estimators.seeds import fold


@dataclass(frozen=True)
class ForkStudy(Points):
    """What to train, where to let copies go on, ``ahead`` steps each, and by what: ``count`` copies
    of every method, ``tuning`` more to find its learning rate by.

    ``draws`` are those of the cost that predicts where they end, ``curved`` batches have the
    curvature of each; ``held_out`` batches of the task, on which no copy trains, have the losses
    that are compared.
    """

    work: ClassVar[str] = "forks"
    ahead: int = 16
    count: int = 4
    tuning: int = 1
    fractions: tuple[float, ...] = FRACTIONS
    factors: tuple[float, ...] = FACTORS
    draws: int = 4
    nodes: int | None = None
    held_out: int = 4
    curved: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self.ahead, self.count, self.tuning, self.fractions, self.factors)

    def least_forks(self) -> int:
        """How many forks there are at every point, where no grid of rates has to grow and one rate
        is the best of all.
        """
        methods = len(self.fractions) + len(self.choices())
        return methods * (len(self.factors) * self.tuning + self.count)


def branch(
    study: ForkStudy,
    out: Path,
    resume: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Path:
    """Train, and at every point write cost.parquet, forks.parquet (every fork as it ends) and
    effective.parquet (the effective batch beside its predictions) to ``out``, which is returned.

    ``progress`` is called with ("train", updates), ("draw", draws of a point's cost) and ("fork",
    forks that ended); ``say`` is told of the memory that costs need, before they are measured.
    ``jobs`` draws and forks run at a time, on the joblib backend that is active. A study that was
    stopped goes on with ``resume=True`` where it was, with any number of jobs.
    Raises ValueError for a folder that cannot be used, FloatingPointError for what is not finite.
    """
    ends, effective = out / "forks.parquet", out / "effective.parquet"
    about = {"run": study.name, "task": study.task}

    def show(stage: str, done: int) -> None:
        if progress is not None:
            progress(stage, done)

    for step, training in stops(study, out, effective.name, resume, progress):
        costs = read_costs(out, step, training, study.schedule(step))
        if costs is None:
            say_memory(say, training.model, jobs, len(study.choices()))
            costs = predict(study, training, step, show, jobs)
            write_costs(out, step, costs, about)
        before = records.read_rows(ends) if ends.exists() else None
        mine = None if before is None else before[before["step"] == step]

        def keep(rows: pd.DataFrame, step: int = step) -> None:
            write_step(ends, step, rows.assign(**about))
            show("fork", len(rows))

        table = forks(
            training.model,
            Loss(training.task, training.device),
            fresh(training, step, "fork"),
            study.choices(),
            training.optimizer,
            steps=study.ahead,
            count=study.count,
            tuning=study.tuning,
            fractions=study.fractions,
            factors=study.factors,
            evaluation=list(itertools.islice(fresh(training, step, "held out"), study.held_out)),
            schedule=study.schedule(step),
            seed=fold(study.seed, "fork", step),
            jobs=jobs,
            known=mine,
            keep=keep,
        ).table
        both = beside(table, costs, study.ahead)
        write_step(effective, step, both.assign(**about))
    return out


def predict(
    study: ForkStudy, training: Training, step: int, show: Progress, jobs: int = 1
) -> Costs:
    """The costs of the study's estimators at one step, over one step, the forks' and forever."""
    return cost(
        training.model,
        Loss(training.task, training.device),
        fresh(training, step, "cost"),
        study.choices(),
        training.optimizer,
        sorted({1.0, float(study.ahead), math.inf}),
        draws=study.draws,
        curvature="gauss-newton",
        schedule=study.schedule(step),
        curved=study.curved,
        nodes=study.nodes,
        seed=fold(study.seed, "cost", step),
        progress=lambda done, total: show("draw", done),
        jobs=jobs,
    )
