"""Reading a layer in another metric, from what each of its uses told there."""

from collections.abc import Sequence

from torch import Tensor

from sketchvar.analysis import noise
from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.probe.sums import joined, sum_by_example
from sketchvar.analysis.probe.watch import Use
from sketchvar.analysis.probe.weighing import Weighed
from sketchvar.estimators import Moments


def layer_in_metric(
    layer: Layer, uses: Sequence[Use], example_sq: Sequence[Tensor], scale: Tensor | float
) -> Layer | None:
    """A layer in the metric that its uses were weighed in, in the scale of the gradient over the
    scaler's; None where one was not. ``example_sq`` are squared norms of examples, of each pass.
    """
    weighed = [use.weighed for use in uses if use.weighed is not None]
    whole = merge(weighed, layer.moments, scale) if len(weighed) == len(uses) else None
    parts = [merge([use], plain, scale) for use, plain in zip(weighed, layer.parts, strict=False)]
    if whole is None or None in parts:
        return None
    known = [part for part in parts if part is not None]
    squares = joined(example_sq).double() / scale**2 if example_sq else None
    if squares is None:
        return layer.measured_in(whole, None, None, tuple(known))
    rows = sum_by_example(uses, whole.rows_sq[:, None])[0] if "rows_sq" in vars(whole) else None
    inner = None if layer.weights is None else inner_products(uses, whole, scale)
    return layer.measured_in(whole, squares, rows, tuple(known), inner)


def inner_products(uses: Sequence[Use], m: Moments, scale: Tensor | float) -> Tensor | None:
    """⟨g_s, G⟩ of each example in the metric, where X and Y are kept."""
    pairs = [use.pair for use in uses if use.pair is not None]
    weighed = uses[0].weighed
    if len(pairs) < len(uses) or weighed is None:
        return None
    G = weighed.metric.weights.to(m.G.dtype) * m.G
    each = [noise.inner_products(x, y, G.to(x.dtype)) / scale for x, y in pairs]
    return sum_by_example(uses, joined(each)[:, None])[0]


def merge(uses: Sequence[Weighed], plain: Moments, scale: Tensor | float) -> Moments | None:
    """The moments of uses together in their metric, of which ``plain`` are the Euclidean ones; None
    where a gradient is not known.
    """
    gradients = [use.gradient for use in uses if use.gradient is not None]
    if len(gradients) < len(uses) or not uses:
        return None
    weights, whole, Q = uses[0].metric.weights, scale**2, None
    sides = [use.sides for use in uses if use.sides is not None]
    rows = [use.rows_sq for use in uses if use.rows_sq is not None]
    if len(sides) == len(uses):
        a, b = (sum(each[1:], each[0]).to(weights.dtype) for each in zip(*sides, strict=True))
        Q = (a @ weights @ b).double() / whole
    return Moments(
        plain.p,
        plain.q,
        plain.x_sq,
        plain.y_sq,
        pair=plain.pair if plain.has_pair else None,
        metric=uses[0].metric,
        Q=Q,
        rows_sq=joined(rows).double() / whole if len(rows) == len(uses) else None,
        G=sum(gradients[1:], gradients[0]) / scale,
    )
