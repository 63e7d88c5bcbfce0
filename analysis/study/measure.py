"""What is measured at one step of a training: its own batch, or fresh ones."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from sketchvar.analysis.loop import Training
from sketchvar.analysis.noise.parameters import Gradient
from sketchvar.analysis.noise.table import Batch, read_batch
from sketchvar.analysis.probe import Layer, Probe
from sketchvar.analysis.probe.frozen import frozen
from sketchvar.analysis.tasks import move
from sketchvar.estimators import Choice

Ask = Callable[[Tensor | None, torch.optim.Optimizer], dict[str, Any]]


class Seen(NamedTuple):
    """What batches at one step say; the layers and the coverage are those of the last."""

    batches: list[Batch | None]
    layers: dict[str, Layer]
    coverage: pd.DataFrame
    gradients: list[list[Gradient]]  # of every parameter, in each batch


def see(probe: Probe, chosen: Sequence[Choice], dtype: torch.dtype) -> Seen:
    """Read the batch that a probe has just measured."""
    layers = probe.read()
    batch = read_batch(list(layers.values()), chosen, dtype)
    return Seen([batch], layers, probe.coverage(), [probe.known])


def measure_fresh(
    training: Training,
    step: int,
    seeds: Sequence[int],
    chosen: Sequence[Choice],
    pairs: Sequence[str],
    ask: Ask,
) -> Seen:
    """Measure a fresh batch of every seed; the training is left as it was. ``ask`` gives a probe's
    options for the weights of a batch's examples.

    Raises FloatingPointError for a loss that is not finite.
    """
    task, device = training.task, training.device
    batches: list[Batch | None] = []
    gradients: list[list[Gradient]] = []
    with frozen(training.model):
        for seed in seeds:
            batch = move(task.batch(step, seed), device)
            training.optimizer.zero_grad(set_to_none=True)
            training.seed_step(step, seed)
            options = ask(task.count_tokens(training.part(batch)), training.optimizer)
            with Probe(training.trained, pairs=pairs, **options) as probe:
                training.backward(batch, f"step {step}, on a fresh batch")
            seen = see(probe, chosen, task.dtype)
            batches += seen.batches
            gradients += seen.gradients
    return seen._replace(batches=batches, gradients=gradients)
