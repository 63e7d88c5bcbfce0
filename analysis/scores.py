"""How close predicted scores come to the oracle: layers train with ScoredRows, then are compared on
batches unseen.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from sketchvar.analysis import noise
from sketchvar.analysis.loop import start
from sketchvar.analysis.probe import Layer, Probe
from sketchvar.analysis.tasks import Batch, Task
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
    if steps < 1 or batches < 2:
        raise ValueError(
            f"scores need one step or more to learn and two batches to compare, got {steps},"
            f" {batches}"
        )
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
        with Probe(model) as probe, padding_left_out(batch):
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
