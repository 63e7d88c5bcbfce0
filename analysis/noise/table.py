"""The table: layer × estimator × rate -> variance, ratio to the minibatch variance, kept bytes."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch

from sketchvar.analysis.noise import closed
from sketchvar.analysis.noise.layer import Layer
from sketchvar.estimators import Estimator, parse
from sketchvar.estimators.estimator import check_rate
from sketchvar.estimators.spelling import split_rate, takes_rate, traits_of

COLUMNS = ["run", "step", "layer", "p", "q", "rows", "examples", "estimator", "rate", "kept_bytes"]
COLUMNS += [
    "variance",
    "minibatch_row",
    "minibatch_example",
    "ratio",
    "alpha",
    "grad_sq",
    "input_of",
]


def choices(estimators: Sequence[str], rates: Sequence[float]) -> list[tuple[str, float]]:
    """Every (name, rate) to compare, once; one that is spelled with its rate comes at that one,
    without one at 1.
    """
    return list(dict.fromkeys(split_rate(text, rate) for text in estimators for rate in rates))


def check_choices(asked: object, estimators: Sequence[str], rates: Sequence[float]) -> None:
    """Raise ValueError for an estimator that is not known or has no closed form, or a rate outside
    (0, 1].

    ``asked`` is named in the message.
    """
    for name in estimators:
        if traits_of(name).no_closed_form:
            raise ValueError(
                f"{name} has no closed form to compare; leave it out, or draw it with empirical()"
            )
    for rate in rates:
        check_rate(asked, rate)


def for_layer(name: str, rate: float, layer: Layer) -> Estimator:
    """The estimator for one layer's pair; an oracle is told the row norms of that layer's Y."""
    return parse(name, rate, layer.moments.y_sq)


def compare(
    layers: Iterable[Layer],
    estimators: Sequence[str],
    rates: Sequence[float],
    dtype: torch.dtype | None = None,
) -> pd.DataFrame:
    """One row per layer and choice, with all of ``COLUMNS`` but run and step: ``compared`` as a
    table.
    """
    return pd.DataFrame(compared(layers, estimators, rates, dtype), columns=COLUMNS[2:])


def compared(
    layers: Iterable[Layer],
    estimators: Sequence[str],
    rates: Sequence[float],
    dtype: torch.dtype | None = None,
) -> list[tuple[Any, ...]]:
    """One row per layer and choice. ``dtype`` is the one X is kept in: the product's own unless
    given.

    ``variance``, the two minibatch variances (units row and example) and ``grad_sq`` = ‖G‖² are of
    the gradient that autograd formed. ``ratio`` is variance / minibatch_example; NaN where the
    minibatch variance is undefined.
    ``input_of`` is the first layer that read the same X, the layer itself where no other did.
    """
    rows, scalars, inputs, chosen = [], [], [], choices(estimators, rates)
    for layer in layers:
        m = layer.moments
        row, squares = closed.by_row(m, layer.rows), layer.example_sq
        example = (
            torch.full_like(m.C, torch.nan) if squares is None else closed.by_example(squares, m.C)
        )
        for name, rate in chosen:
            estimator = for_layer(name, rate, layer)
            rows.append(
                (
                    layer.name,
                    m.p,
                    m.q,
                    m.n,
                    layer.examples,
                    name,
                    rate,
                    estimator.kept_bytes(m.n, m.p, dtype or layer.dtype),
                )
            )
            inputs.append(layer.input_of)
            scalars += [estimator.variance(m), row, example, m.alpha, m.C]
    if not rows:
        return []
    variance, row, example, alpha, grad_sq = torch.stack(scalars).view(-1, 5).unbind(1)
    numbers = torch.stack([variance, row, example, variance / example, alpha, grad_sq], 1)
    lines = numbers.tolist()  # the one device synchronisation
    return [(*a, *b, c) for a, b, c in zip(rows, lines, inputs, strict=True)]


def at_rate(rows: pd.DataFrame, rate: float) -> pd.DataFrame:
    """The rows at one rate, with those of estimators that have none."""
    return rows[(rows["rate"] == rate) | ~rows["estimator"].map(takes_rate).astype(bool)]


def by_unit(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows twice, with ``ratio`` against the minibatch variance of each ``unit``: example,
    then row.
    """
    parts = [
        rows.assign(unit=unit, ratio=rows["variance"] / rows[f"minibatch_{unit}"])
        for unit in ("example", "row")
    ]
    return pd.concat(parts, ignore_index=True)
