"""The table: layer × estimator × rate -> variance, ratio to the minibatch variance, kept bytes."""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch

from sketchvar.analysis.noise import closed
from sketchvar.analysis.noise.layer import Layer
from sketchvar.estimators import Choice, choices
from sketchvar.estimators.choice import Estimators, Flags, Rates
from sketchvar.estimators.combine import innermost
from sketchvar.estimators.estimator import Estimator, KeepsRows
from sketchvar.estimators.sketch import RowSketch

# what files of before this version lack; ``records.read_rows`` adds it
LATER = ["uses", "batches", "population", "kept_rows", "share", "variance_stderr"]
LATER += ["minibatch_row_stderr", "minibatch_example_stderr", "ratio_stderr", "alpha_stderr"]
LATER += ["signal_stderr"]
COLUMNS = ["run", "step", "layer", "p", "q", "rows", "examples", "uses", "batches", "population"]
COLUMNS += ["estimator", "rate", "kept_rows", "kept_bytes", "x_bytes", "share"]
COLUMNS += ["variance", "variance_stderr", "minibatch_row", "minibatch_row_stderr"]
COLUMNS += ["minibatch_example", "minibatch_example_stderr", "ratio", "ratio_stderr"]
COLUMNS += ["alpha", "alpha_stderr", "grad_sq", "signal_stderr", "sketchable", "input_of"]
COLUMNS += Flags._fields


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
    ``uses`` is how often the weight was used in the step, ``batches`` how many batches the numbers
    are averages over, ``population`` how many examples there are to draw from (NaN: no end of
    them). ``kept_rows`` (NaN where no rows are kept, but features or bits) are what a rate makes of
    this many rows. ``x_bytes`` are those of X itself, ``share`` = kept_bytes / x_bytes. Columns
    that end in ``_stderr`` are standard errors, NaN where they are not known; ``signal_stderr`` is
    that of ‖E g‖² as ``noise_scale`` estimates it.
    ``input_of`` is the first layer that read the same X, the
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
            of = (layer.name, m.p, m.q, m.n, layer.examples, layer.uses, 1, math.nan)
            size = (count_rows(estimator, m.n), kept, whole, kept / max(whole, 1))
            rows.append((*of, choice.name, choice.rate, *size))
            rest.append((layer.sketchable, layer.input_of, *choice.flags))
            scalars += [estimator.variance(m), row, example, m.alpha, m.C]
    if not rows:
        return []
    variance, row, example, alpha, grad_sq = (
        torch.stack([each.to(scalars[0].device) for each in scalars]).view(-1, 5).unbind(1)
    )
    none = torch.full_like(variance, torch.nan)
    columns = [variance, none, row, none, example, none, variance / example, none, alpha, none]
    numbers = torch.stack([*columns, grad_sq, none], 1)
    lines = numbers.tolist()  # the one device synchronisation
    return [(*a, *b, *c) for a, b, c in zip(rows, lines, rest, strict=True)]


def count_rows(estimator: Estimator, n: int) -> float:
    """Count the rows that an estimator keeps of n, sums of rows or rows themselves; NaN where it
    keeps something of every row.
    """
    inner = innermost(estimator)
    return inner.kept_shape(n, 1)[0] if isinstance(inner, RowSketch | KeepsRows) else math.nan
