"""How much shorter an adaptive optimizer's steps become as it sees more noise: the signal side."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis.noise.inner import inner
from sketchvar.analysis.noise.metric import Steps

LATER = tuple(2**i for i in range(10))  # steps after which the optimizer has seen so much of it
PARTS = tuple(2.0**-i for i in range(8))  # fractions of the batch
PROGRESS = ["noise", "rate", "fraction", "after", "progress"]


def measure_progress(
    steps: Steps,
    signal: Float[Tensor, " N"],
    squares: Float[Tensor, " N"],
    minibatch: Float[Tensor, " N"],
    others: Mapping[tuple[str, float], Float[Tensor, " N"]],
    name: str,
) -> list[tuple[Any, ...]]:
    """The linear progress Σ sᵢDᵢ, s the squares of the gradient (``signal``), over that of now,
    after each of ``LATER`` steps on gradients of a method: rows of ``PROGRESS``. None for steps
    that do not adapt.

    By then Adam's v̂ has become βᵗv̂ + (1 − βᵗ)E ĝ²: E ĝ² is ``squares`` on the whole batch; by an
    estimator its own squares (``others``) more; on a fraction f of the batch (1/f − 1) times those
    of the ``minibatch``'s noise more, under ``name``. All are means of draws, entry by entry.
    """
    if steps.second is None:
        return []
    now = total(steps.after(squares, torch.zeros_like(squares)), signal)
    methods = [(name, 1.0, f, (1 / f - 1) * minibatch) for f in PARTS]
    methods += [(*key, 1.0, own) for key, own in others.items()]
    rows = []
    for noise, rate, fraction, more in methods:
        for step in LATER:
            kept = steps.decay**step
            seen = kept * steps.second + (1 - kept) * (squares + more)
            later = Steps(steps.rate, second=seen, epsilon=steps.epsilon)
            rows.append((noise, rate, fraction, step, total(later, signal) / now))
    return rows


def total(steps: Steps, signal: Float[Tensor, " N"]) -> float:
    """Σ sᵢDᵢ."""
    return inner(signal, steps.sizes)
