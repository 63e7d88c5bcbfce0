"""Reading a layer in another metric, from what each of its uses told there on every rank."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sketchvar.analysis import noise
from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.probe.step import Tally
from sketchvar.analysis.probe.sums import joined, sum_by_example
from sketchvar.analysis.probe.watch import Use
from sketchvar.estimators import Moments


class InMetric(NamedTuple):
    """What uses of a weight told in their metric, on one rank or on all of them: of each row
    ‖xᵢyᵢᵀ‖²; of each example ‖g_s‖², the sum of its rows and ⟨g_s, G⟩; squared norms of columns
    of X and of Y; a 1 if G is known. Empty where it is not, or was not asked for.
    """

    rows_sq: Tensor
    example_sq: Tensor
    by_example: Tensor
    inner: Tensor
    x_columns: Tensor
    y_columns: Tensor
    known: Tensor

    @classmethod
    def of(cls, ranks: "Sequence[InMetric]") -> "InMetric":
        """What all ranks told."""
        sides = list(zip(*ranks, strict=True))
        rows_sq, example_sq, by_example, inner = map(joined, sides[:4])
        x, y = (sum(side[1:], side[0]) for side in sides[4:6])
        return cls(rows_sq, example_sq, by_example, inner, x, y, min(sides[6], key=len))


def gather_in_metric(tallies: Sequence[Tally], ranks: Ranks) -> list[InMetric]:
    """What all ranks told of each tally."""
    told = [tell(tally.uses, gradient_of(tally), tally.weighed_sq) for tally in tallies]
    if ranks.size == 1 or not told:
        return told
    everywhere, size = ranks.gather([t for one in told for t in one]), len(InMetric._fields)
    return [
        InMetric.of([InMetric(*rank[size * i : size * (i + 1)]) for rank in everywhere])
        for i in range(len(told))
    ]


def gradient_of(tally: Tally) -> Tensor | None:
    """G (p × q) in the scale of .grad, where all uses of the weight were weighed."""
    parts = [use.weighed.gradient for use in tally.uses if use.weighed is not None]
    known = [part for part in parts if part is not None]
    if len(known) < len(tally.uses):
        return None
    if tally.several:
        return None if tally.mean is None else tally.uses[0].form.matrix(tally.mean)
    return sum(known[1:], known[0])


def tell(uses: Sequence[Use], G: Tensor | None, example_sq: Sequence[Tensor] = ()) -> InMetric:
    """What these uses told, of one rank."""
    none = uses[0].x_norm.new_zeros(0, dtype=torch.float64)
    told = InMetric(*[none] * len(InMetric._fields))
    weighed = [use.weighed for use in uses if use.weighed is not None]
    if G is None or len(weighed) < len(uses):
        return told
    told = told._replace(known=none.new_ones(1))
    rows = [use.rows_sq for use in weighed if use.rows_sq is not None]
    sides = [use.sides for use in weighed if use.sides is not None]
    if len(sides) == len(uses):
        a, b = (sum(side[1:], side[0]) for side in zip(*sides, strict=True))
        told = told._replace(x_columns=a, y_columns=b)
    if len(rows) == len(uses):
        told = told._replace(rows_sq=joined(rows).double())
    if not example_sq:
        return told
    told = told._replace(example_sq=joined(example_sq).double())
    if len(rows) == len(uses):
        told = told._replace(by_example=sum_by_example(uses, told.rows_sq[:, None])[0])
    pairs = [use.pair for use in uses if use.pair is not None]
    if uses[0].weights is not None and len(pairs) == len(uses):
        G = weighed[0].metric.weights.to(G.dtype) * G
        each = [noise.inner_products(x, y, G.to(x.dtype)) for x, y in pairs]
        told = told._replace(inner=sum_by_example(uses, joined(each)[:, None])[0])
    return told


def layer_in_metric(
    layer: Layer, tally: Tally, told: InMetric, scale: Tensor | float, ranks: int
) -> Layer | None:
    """A layer in the metric that its uses were weighed in, in the scale of their ranks' averaged
    gradient over the scaler's; None where one was not.
    """
    G = gradient_of(tally)
    if G is None or not len(told.known):
        return None
    whole, part = moments(tally.uses, told, layer.moments, G, scale, ranks), (scale * ranks) ** 2
    parts = [
        moments([use], tell([use], use.weighed.gradient), plain, use.weighed.gradient, scale, 1)
        for use, plain in zip(tally.uses, layer.parts, strict=False)
        if use.weighed is not None and use.weighed.gradient is not None
    ]
    if not tally.weighed_sq:
        return layer.measured_in(whole, None, None, tuple(parts))
    rows = told.by_example / part if len(told.by_example) else None
    inner = None if layer.weights is None or not len(told.inner) else told.inner / part * ranks
    return layer.measured_in(whole, told.example_sq / part, rows, tuple(parts), inner)


def moments(
    uses: Sequence[Use],
    told: InMetric,
    plain: Moments,
    G: Tensor,
    scale: Tensor | float,
    ranks: int,
) -> Moments:
    """The moments of uses together in their metric, of which ``plain`` are the Euclidean ones."""
    assert uses[0].weighed is not None
    metric, part = uses[0].weighed.metric, (scale * ranks) ** 2
    Q = None
    if len(told.x_columns):
        a, b = (t.to(metric.weights.dtype) for t in (told.x_columns, told.y_columns))
        Q = (a @ metric.weights @ b).double() / part
    return Moments(
        plain.p,
        plain.q,
        plain.x_sq,
        plain.y_sq,
        pair=plain.pair if plain.has_pair else None,
        metric=metric,
        Q=Q,
        rows_sq=told.rows_sq / part if len(told.rows_sq) else None,
        G=G / scale,
    )
