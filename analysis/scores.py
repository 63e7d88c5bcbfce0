"""How close predicted scores come to the oracle: layers train with ScoredRows, then are compared on
batches unseen.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from sketchvar.analysis import noise, records
from sketchvar.analysis.claim import record
from sketchvar.analysis.loop import start
from sketchvar.analysis.probe import Layer, Probe
from sketchvar.analysis.tasks import Batch, Options, Task, find_task
from sketchvar.estimators import (
    Choice,
    Estimator,
    NormRows,
    OptimalRows,
    ScoredRows,
    UniformRows,
    counting,
    sketch_linears,
    unsketch,
)
from sketchvar.estimators.choice import Flags
from sketchvar.estimators.layers.linear import Sketched
from sketchvar.estimators.layers.predicted import row_scores

FLOOR = 0.1
KEYS = ["layer", "estimator", "rate", "step", *Flags._fields]


@dataclass(frozen=True)
class Predicting:
    """What to train on predicted scores, for how many updates, at which rate, and on how many new
    minibatches to compare. Raises ValueError for names that are not known and numbers that make no
    sense.
    """

    task: str
    steps: int
    rate: float
    batches: int = 8
    device: str = "cpu"
    seed: int = 0
    options: Options = ()

    def __post_init__(self) -> None:
        self.make_task()
        ScoredRows(self.rate)  # refuses a rate that makes no sense
        check(self.steps, self.batches)

    def make_task(self) -> Task:
        """Make the task."""
        return find_task(self.task, self.options)


def run(
    asked: Predicting, out: Path, progress: Callable[[int, float], object] | None = None
) -> Path:
    """Write the table of ``scores`` to scores.parquet of a folder, and run.json; returns the
    folder. What was finished there before is left as it is. Raises ValueError for a folder that
    cannot be used.
    """
    a, task = asked, asked.make_task()
    origin = records.provenance(torch.device(a.device)) | task.provenance()

    def tables() -> Iterator[pd.DataFrame]:
        yield scores(task, a.steps, a.rate, a.batches, a.device, a.seed, progress)

    return record(out, "scores", asdict(a), origin, "scores.parquet", tables())


def check(steps: int, batches: int) -> None:
    """Raise ValueError for too few of either."""
    if steps < 1 or batches < 2:
        raise ValueError(
            f"scores need one step or more to learn and two batches to compare, got {steps},"
            f" {batches}"
        )


def scores(
    task: Task,
    steps: int,
    rate: float,
    batches: int = 8,
    device: str = "cpu",
    seed: int = 0,
    progress: Callable[[int, float], object] | None = None,
) -> pd.DataFrame:
    """Train ``task`` for ``steps`` with every linear layer on ``ScoredRows(rate)``, then compare on
    ``batches`` new minibatches: uniform rows, norms of X alone, the scores each layer has learned,
    and the oracle.

    One row per layer and estimator; ``variance`` and ``minibatch_example`` are means over batches,
    ``ratio`` is theirs.
    ``gap_closed`` is the part of the way from norm-rows to optimal-rows that an estimator goes, 1
    for the oracle, with ``gap_stderr`` over the batches. Padding, where the task's inputs have an
    ``attention_mask``, gets no score.
    Raises ValueError for fewer than one step or two batches.
    """
    check(steps, batches)
    training = start(task, steps, torch.device(device), seed)
    model = training.model
    sketch_linears(model, ScoredRows(rate, floor=FLOOR))
    for step in range(steps):
        batch = training.batch(step)
        with padding_left_out(batch):
            loss = training.advance(step, batch)
        if progress is not None:
            progress(step + 1, loss)
    learned = {name: m.position_sq for name, m in model.named_modules() if isinstance(m, Sketched)}
    unsketch(model)
    rows: list[tuple[Any, ...]] = []
    for step in range(steps, steps + batches):
        batch = training.batch(step)
        with Probe(model, parameters=False) as probe, padding_left_out(batch):
            training.gradient(step, batch)
            for layer in probe.read().values():
                assert layer.example_sq is not None
                example = noise.by_example(layer.example_sq, layer.moments.C)
                for name, estimator in candidates(layer, learned[layer.name], rate).items():
                    variance = float(estimator.variance(layer.moments))
                    where = (layer.name, name, rate, steps, *Choice.of(estimator).flags)
                    rows.append((*where, step, variance, float(example)))
    return summary(pd.DataFrame(rows, columns=[*KEYS, "batch", "variance", "minibatch_example"]))


def padding_left_out(batch: Batch) -> AbstractContextManager[Any]:
    """Within, padding gets no score, where the inputs say which rows these are."""
    mask = batch[0].get("attention_mask") if isinstance(batch[0], Mapping) else None
    return nullcontext() if mask is None else counting(mask)


def candidates(layer: Layer, position_sq: Tensor, rate: float) -> dict[str, Estimator]:
    """What is compared on one layer's pair; ``position_sq`` is what the layer has learned."""
    m = layer.moments
    predicted = row_scores(position_sq, m.n, m.n // layer.examples)
    return {
        "uniform-rows": UniformRows(rate),
        "norm-rows": NormRows(rate),
        "scored-rows": ScoredRows(rate, predicted, FLOOR),
        "optimal-rows": OptimalRows(rate, m.y_sq),
    }


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over batches by layer and estimator, and how much of the gap each closes."""
    by_name = rows.pivot_table(
        index=["layer", "batch"], columns="estimator", values="variance", sort=False
    )
    gap = by_name["norm-rows"] - by_name["optimal-rows"]
    closed = by_name.rsub(by_name["norm-rows"], axis=0).div(gap, axis=0).groupby("layer")
    means = rows.groupby(KEYS, sort=False)[["variance", "minibatch_example"]].mean().reset_index()
    means["ratio"] = means["variance"] / means["minibatch_example"]
    for column, table in (("gap_closed", closed.mean()), ("gap_stderr", closed.sem())):
        means[column] = [
            table.loc[key] for key in zip(means["layer"], means["estimator"], strict=True)
        ]
    return means
