"""The table: layer × estimator × rate -> variance, ratio to the minibatch variance, kept bytes."""

from collections.abc import Iterable, Sequence

import pandas as pd
import torch

from analysis import noise
from analysis.probe import Layer
from estimators import Estimator, build
from estimators.catalog import WITHOUT_RATE

COLUMNS = ["run", "step", "layer", "p", "q", "rows", "examples", "estimator", "rate", "kept_bytes"]
COLUMNS += ["variance", "minibatch_row", "minibatch_example", "ratio", "alpha", "grad_sq"]


def choices(estimators: Sequence[str], rates: Sequence[float]) -> list[tuple[str, float]]:
    """Every (estimator, rate) to compare; an estimator that has no rate comes once, at rate 1."""
    return [(name, rate) for name in estimators for rate in ([1.0] if name in WITHOUT_RATE else rates)]


def for_layer(name: str, rate: float, layer: Layer) -> Estimator:
    """The estimator for one layer's pair; an oracle is told the row norms of that layer's Y."""
    return build(name, rate, layer.moments.y_sq)


def compare(
    layers: Iterable[Layer], estimators: Sequence[str], rates: Sequence[float], dtype: torch.dtype
) -> pd.DataFrame:
    """One row per layer and choice, with all of ``COLUMNS`` but run and step; ``dtype`` is the one X is kept in.

    ``variance``, the two minibatch variances (units row and example) and ``grad_sq`` = ‖G‖² are of the gradient that
    autograd formed. ``ratio`` is variance / minibatch_example; NaN where the minibatch variance is undefined.
    """
    rows, scalars = [], []
    for layer in layers:
        m = layer.moments
        row, example = noise.by_row(m), torch.full_like(m.C, torch.nan)
        if layer.example_sq is not None:
            example = noise.by_example(layer.example_sq, m.C)
        for name, rate in choices(estimators, rates):
            estimator = for_layer(name, rate, layer)
            rows.append((layer.name, m.p, m.q, m.n, layer.examples, name, rate, estimator.kept_bytes(m.n, m.p, dtype)))
            variance = estimator.variance(m)
            scalars.append(torch.stack([variance, row, example, variance / example, m.alpha, m.C]))
    if not rows:
        return pd.DataFrame(columns=COLUMNS[2:])
    numbers = torch.stack(scalars).tolist()  # the one device synchronisation
    return pd.DataFrame([(*a, *b) for a, b in zip(rows, numbers, strict=True)], columns=COLUMNS[2:])


def at_rate(rows: pd.DataFrame, rate: float) -> pd.DataFrame:
    """The rows at one rate, with those of estimators that have none."""
    return rows[(rows["rate"] == rate) | rows["estimator"].isin(WITHOUT_RATE)]


def by_unit(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows twice, with ``ratio`` against the minibatch variance of each ``unit``: example, then row."""
    parts = [rows.assign(unit=unit, ratio=rows["variance"] / rows[f"minibatch_{unit}"]) for unit in ("example", "row")]
    return pd.concat(parts, ignore_index=True)
