"""Closed forms of pairs that are spread over ranks: each has its rows' part of them, or of each
layer one rank has all rows.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis.noise.batch import know_variance, variance_of
from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.probe.step import Step, Tally
from sketchvar.analysis.probe.sums import joined
from sketchvar.estimators import Choice, Moments
from sketchvar.estimators.norms import wide


def share_forms(
    layers: Sequence[Layer], step: Step, chosen: Sequence[Choice], ranks: Ranks
) -> None:
    """Have the moments of these layers know the variances of those of the ``chosen`` whose closed
    forms need X and Y themselves.

    A sum over rows, as that of rounding, is one over ranks. For any other X and Y of a layer go to
    one rank, layer by layer to another, so that each rank computes as much as it would alone and
    holds one layer's rows of all ranks at a time. Raises RuntimeError, on every rank, where a
    closed form raises on one.
    """
    needed = [choice for choice in chosen if choice.needs_pair]
    needed.sort(key=lambda choice: choice.estimator.traits.row_by_row)
    apart = sum(not choice.estimator.traits.row_by_row for choice in needed)
    tallies = {tally.watch.name: tally for tally in step.tallies.values()}
    layers = [each for each in layers if tallies[each.name].uses[0].pair is not None]
    if not layers or not needed:
        return
    found = layers[0].moments.C.new_zeros(len(layers), 2, len(needed))
    errors: list[str] = []
    scale = step.scale * ranks.size
    for i, layer in enumerate(layers):
        own = own_pair(tallies[layer.name])
        sent = [ranks.gather_rows(t, to=i % ranks.size) for t in own] if apart else []
        whole = [t for t in sent if t is not None]
        try:
            found[i, :, apart:] = read_forms(layer, own, scale, needed[apart:])
            if whole:
                found[i, :, :apart] = read_forms(layer, whole, scale, needed[:apart])
        except Exception as error:
            errors.append(f"{layer.name}: {type(error).__name__}: {error}")
    if ranks.sum(found.new_tensor(float(len(errors)))):
        number, words = next((n, each[0]) for n, each in enumerate(ranks.tell(errors)) if each)
        raise RuntimeError(f"rank {number} could not compute the closed forms of {words}")
    for layer, (plain, in_metric) in zip(layers, ranks.sum(found), strict=True):
        for k, choice in enumerate(needed):
            know_variance(choice, layer.moments, plain[k])
            if layer.metric is not None:
                know_variance(choice, layer.metric.moments, in_metric[k])


def own_pair(tally: Tally) -> tuple[Tensor, Tensor]:
    """This rank's X and Y, of all uses."""
    x, y = zip(*[use.pair for use in tally.uses if use.pair is not None], strict=True)
    return joined(x), joined(y)


def read_forms(
    layer: Layer, pair: Sequence[Tensor], scale: Tensor | float, needed: Sequence[Choice]
) -> Float[Tensor, "2 K"]:
    """The variance of each choice for this pair, Y over ``scale``, and that in the layer's metric
    if it has one.
    """
    x, y = pair
    found = layer.moments.C.new_zeros(2, len(needed))
    metrics = [None] if layer.metric is None else [None, layer.metric.moments.metric]
    for row, metric in zip(found, metrics, strict=False):
        m = Moments.of(x, wide(y) / scale, metric)
        for k, choice in enumerate(needed):
            row[k] = variance_of(choice, m)
    return found
