"""The table: layer × estimator × rate -> variance, ratio to the minibatch variance, kept bytes."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis.noise.batch import Sums, variances, variances_in_metric
from sketchvar.analysis.noise.errors import Estimate, estimate
from sketchvar.analysis.noise.layer import Layer
from sketchvar.estimators import Choice, choices
from sketchvar.estimators.choice import Estimators, Flags, Rates
from sketchvar.estimators.combine import innermost
from sketchvar.estimators.estimator import Estimator, KeepsRows
from sketchvar.estimators.feature import FeatureProjection
from sketchvar.estimators.residual import Shrunk
from sketchvar.estimators.sketch import RowSketch

# what files of before this version lack; ``records.read_rows`` adds it
LATER = ["uses", "batches", "population", "kept_rows", "share", "variance_stderr"]
LATER += ["minibatch_row_stderr", "minibatch_example_stderr", "ratio_stderr", "alpha_stderr"]
METRIC = ["metric_variance", "metric_minibatch", "metric_ratio", "metric_ratio_stderr"]
LATER += ["signal_stderr", *METRIC]
COLUMNS = ["run", "step", "layer", "p", "q", "rows", "examples", "uses", "batches", "population"]
COLUMNS += ["estimator", "rate", "kept_rows", "kept_bytes", "x_bytes", "share"]
COLUMNS += ["variance", "variance_stderr", "minibatch_row", "minibatch_row_stderr"]
COLUMNS += ["minibatch_example", "minibatch_example_stderr", "ratio", "ratio_stderr"]
COLUMNS += ["alpha", "alpha_stderr", "grad_sq", "signal_stderr", *METRIC]
COLUMNS += ["sketchable", "input_of"]
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
    population: int | None = None,
) -> pd.DataFrame:
    """Compare estimators on layers: a row per layer and choice, with all of ``COLUMNS`` but run and
    step.

    ``estimators`` and ``rates`` are what ``choices`` takes; ``dtype`` is the one X is kept in, the
    product's own unless given; ``population`` the number of examples that there are. Raises
    ValueError for an estimator without a closed form.
    """
    chosen = choose_comparable(estimators, rates)
    lines = tabulate([read_batch(list(layers), chosen, dtype)], chosen, population)
    return pd.DataFrame(lines, columns=COLUMNS[2:])


class Batch(NamedTuple):
    """What one batch says of its layers: of each what stands in all of its rows, then of each what
    stands in the row of each choice (bytes and rows kept), and the numbers.
    """

    layers: dict[str, tuple[Any, ...]]
    kept: dict[str, list[tuple[float, float]]]
    sums: Sums
    variance: Float[Tensor, "K L 1+S"]
    exact: bool  # whether inner products are known
    in_metric: tuple[
        Float[Tensor, "K L 1+S"], Float[Tensor, "1 L 1+S"]
    ]  # variance, minibatch variance


def read_batch(
    layers: Sequence[Layer], chosen: Sequence[Choice], dtype: torch.dtype | None = None
) -> Batch | None:
    """Read what a batch says of these layers; None of no layers. Nothing of X and Y is held."""
    if not layers:
        return None
    known: dict[str, tuple[Any, ...]] = {}
    kept: dict[str, list[tuple[float, float]]] = {}
    for layer in layers:
        m, parts = layer.moments, layer.parts or (layer.moments,)
        width = (dtype or layer.dtype).itemsize
        known[layer.name] = (
            (m.p, m.q, m.n, layer.examples, layer.uses, m.n * m.p * width),
            (layer.sketchable, layer.input_of),
        )
        kept[layer.name] = [
            (
                sum(count_rows(choice.estimator, part.n) for part in parts),
                sum(
                    choice.estimator.kept_bytes(part.n, part.p, dtype or layer.dtype)
                    for part in parts
                ),
            )
            for choice in chosen
        ]
    sums = Sums.of(layers)
    exact = all(layer.inner is not None for layer in layers)
    variance = variances(layers, chosen, sums)
    if not exact:  # how ‖G‖² varies is not known, and they vary with it
        for k, choice in enumerate(chosen):
            if isinstance(innermost(choice.estimator), FeatureProjection | Shrunk):
                variance[k, :, 1:] = torch.nan
    in_metric = variances_in_metric(layers, chosen)
    return Batch(known, kept, sums, variance, exact, in_metric)


def tabulate(
    batches: Sequence[Batch | None], chosen: Sequence[Choice], population: int | None = None
) -> list[tuple[Any, ...]]:
    """Tabulate one row per layer and choice, as ``compare``, of means over batches; of the layers
    that all of them saw.

    ``variance``, the two minibatch variances (units row and example) and ``grad_sq`` = ‖G‖² are of
    the gradient that autograd formed. ``ratio`` is variance / minibatch_example, of their means;
    NaN where the minibatch variance is undefined.
    ``uses`` is how often the weight was used in the step, ``batches`` how many batches the numbers
    are averages over, ``population`` how many examples there are to draw from (NaN: no end of
    them). ``kept_rows`` (NaN where no rows are kept, but features or bits) are what a rate makes of
    this many rows. ``x_bytes`` are those of X itself, ``share`` = kept_bytes / x_bytes. Columns
    that end in ``_stderr`` are standard errors, see ``errors.estimate``, NaN where they are not
    known; ``signal_stderr`` is that of ‖E g‖² as ``noise_scale`` estimates it. That, and the errors
    of ``alpha`` and of feature projections, take several batches or exact inner products.
    ``metric_variance``, ``metric_minibatch`` and ``metric_ratio`` are what ``variance``,
    ``minibatch_example`` and ``ratio`` are, in the metric of layers that have one; the error of the
    last is known from several batches, and from one where the closed form asks for neither Q nor
    the pair. ``input_of`` is the first layer that read the same X, the layer itself where no other
    did; ``sketchable`` whether ``sketch_linears`` can convert it.
    """
    read = [batch for batch in batches if batch is not None]
    if len(read) < len(batches) or not read:
        return []
    names = [name for name in read[0].layers if all(name in batch.layers for batch in read)]
    largest = max(layer[0][3] for batch in read for layer in batch.layers.values())
    if population is not None and population < largest:
        raise ValueError(
            f"population={population} is less than a batch of {largest} examples; give the number"
            " of examples that there are to draw from, or None where there is no end of them"
        )
    numbers = combine(read, names, population).tolist()  # the one device synchronisation
    rows = []
    for i, name in enumerate(names):
        of = [batch.layers[name] for batch in read]
        p, q, n, examples, uses, whole = map(average, zip(*(sizes for sizes, _ in of), strict=True))
        first = (name, p, q, n, examples, uses, len(read), population or math.nan)
        for k, choice in enumerate(chosen):
            kept_rows, kept = map(average, zip(*(b.kept[name][k] for b in read), strict=True))
            size = (choice.name, choice.rate, kept_rows, kept, whole, kept / max(whole, 1))
            rows.append((*first, *size, *numbers[k][i], *of[0][1], *choice.flags))
    return rows


def combine(
    batches: Sequence[Batch], names: Sequence[str], population: int | None
) -> Float[Tensor, "K L 16"]:
    """The numbers of these layers, from variance to metric_ratio_stderr in the order of
    ``COLUMNS``.
    """
    variance: list[Tensor] = []
    in_metric: list[list[Tensor]] = [[], []]
    others: list[list[Tensor]] = [[] for _ in range(5)]
    for batch in batches:
        places = [list(batch.layers).index(name) for name in names]
        at = torch.tensor(places, device=batch.variance.device)
        of, examples = batch.sums, batch.layers[names[0]][0][3]
        left = 1 - examples / population if population else 1.0
        apart = of.C - left * of.example
        C = of.C
        if not batch.exact:
            apart[:, 1:] = torch.nan
            C = torch.cat([C[:, :1], torch.full_like(C[:, 1:], torch.nan)], 1)
        variance.append(batch.variance[:, at])
        for each, t in zip(in_metric, batch.in_metric, strict=True):
            each.append(t[:, at])
        for each, t in zip(others, (of.row, of.example, C, of.Q, apart), strict=True):
            each.append(t[None, at])
    row, example, grad_sq, Q, signal = others
    found: list[tuple[Tensor, Tensor]] = [
        estimate(torch.clone, variance),
        estimate(torch.clone, row),
        estimate(torch.clone, example),
        estimate(divide, variance, example),
        estimate(divide, grad_sq, Q),
        Estimate(estimate(torch.clone, grad_sq).value, estimate(torch.clone, signal).stderr),
    ]
    means = [estimate(torch.clone, each).value for each in in_metric]
    columns = [*(t for each in found for t in each), *means, *estimate(divide, *in_metric)]
    shape = found[0][0].shape
    return torch.stack([t.expand(shape) for t in columns], -1)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, not known where b < 0: the minibatch variance without an example may come out so if
    ⟨g_s, G⟩ is taken to be ‖g_s‖² where the gradient is not small beside its noise.
    """
    return (a / b).masked_fill_(b < 0, torch.nan)


def average(values: Sequence[float]) -> float:
    """The mean, as it is where all are equal."""
    return values[0] if len(set(values)) == 1 else sum(values) / len(values)


def count_rows(estimator: Estimator, n: int) -> float:
    """Count the rows that an estimator keeps of n, sums of rows or rows themselves; NaN where it
    keeps something of every row.
    """
    inner = innermost(estimator)
    return inner.kept_shape(n, 1)[0] if isinstance(inner, RowSketch | KeepsRows) else math.nan
