"""The table: layer × estimator × rate -> variance, ratio to the minibatch variance, kept bytes."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch

from sketchvar.analysis.noise import closed
from sketchvar.analysis.noise.layer import Layer
from sketchvar.estimators import Choice, choices
from sketchvar.estimators.choice import Estimators, Flags, Rates

COLUMNS = ["run", "step", "layer", "p", "q", "rows", "examples", "estimator", "rate", "kept_bytes"]
COLUMNS += [
    "x_bytes",
    "variance",
    "minibatch_row",
    "minibatch_example",
    "ratio",
    "alpha",
    "grad_sq",
    "sketchable",
    "input_of",
    *Flags._fields,
]


def choose_comparable(estimators: Estimators, rates: Rates) -> list[Choice]:
    """Read estimators and rates as ``choices`` does, for a comparison of closed forms.

    Raises ValueError for one without a closed form, and what ``choices`` raises.
    """
    found = choices(estimators, rates)
    for choice in found:
        if choice.no_closed_form:
            raise ValueError(
                f"{choice} has no closed form to compare; leave it out, or draw it with empirical()"
            )
    return found


def compare(
    layers: Iterable[Layer],
    estimators: Estimators,
    rates: Rates = (),
    dtype: torch.dtype | None = None,
) -> pd.DataFrame:
    """Compare estimators on layers: a row per layer and choice, with all of ``COLUMNS`` but run and
    step.

    ``estimators`` and ``rates`` are what ``choices`` takes; ``dtype`` is the one X is kept in, the
    product's own unless given. Raises ValueError for an estimator without a closed form.
    """
    chosen = choose_comparable(estimators, rates)
    return pd.DataFrame(tabulate(layers, chosen, dtype), columns=COLUMNS[2:])


def tabulate(
    layers: Iterable[Layer], chosen: Iterable[Choice], dtype: torch.dtype | None = None
) -> list[tuple[Any, ...]]:
    """Tabulate one row per layer and choice, as ``compare``.

    ``variance``, the two minibatch variances (units row and example) and ``grad_sq`` = ‖G‖² are of
    the gradient that autograd formed. ``ratio`` is variance / minibatch_example; NaN where the
    minibatch variance is undefined.
    ``x_bytes`` are those of X itself. ``input_of`` is the first layer that read the same X, the
    layer itself where no other did; ``sketchable`` whether ``sketch_linears`` can convert it.
    """
    rows, scalars, rest, chosen = [], [], [], list(chosen)
    for layer in layers:
        m = layer.moments
        least, squares = layer.resolution, layer.example_sq
        row = closed.by_row(m, layer.rows, least)
        example = (
            torch.full_like(m.C, torch.nan)
            if squares is None
            else closed.by_example(squares, m.C, least)
        )
        for choice in chosen:
            estimator = choice.told(m.y_sq)
            kept = estimator.kept_bytes(m.n, m.p, dtype or layer.dtype)
            whole = m.n * m.p * (dtype or layer.dtype).itemsize
            sizes = (layer.name, m.p, m.q, m.n, layer.examples)
            rows.append((*sizes, choice.name, choice.rate, kept, whole))
            rest.append((layer.sketchable, layer.input_of, *choice.flags))
            scalars += [estimator.variance(m), row, example, m.alpha, m.C]
    if not rows:
        return []
    variance, row, example, alpha, grad_sq = (
        torch.stack([each.to(scalars[0].device) for each in scalars]).view(-1, 5).unbind(1)
    )
    numbers = torch.stack([variance, row, example, variance / example, alpha, grad_sq], 1)
    lines = numbers.tolist()  # the one device synchronisation
    return [(*a, *b, *c) for a, b, c in zip(rows, lines, rest, strict=True)]
