"""Closed forms of pairs that are spread over ranks: of each layer one rank computes them."""

from collections.abc import Sequence

import torch
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

    X and Y of a layer go to one rank, layer by layer to another, so that each rank computes as much
    as it would alone and holds one layer's rows of all ranks at a time. What goes over the wire is
    X and Y, once. Raises RuntimeError, on every rank, where a closed form raises on one.
    """
    needed = [choice for choice in chosen if choice.needs_pair]
    tallies = {tally.watch.name: tally for tally in step.tallies.values()}
    layers = [each for each in layers if tallies[each.name].uses[0].pair is not None]
    if not layers or not needed:
        return
    found = layers[0].moments.C.new_zeros(len(layers), 2, len(needed))
    errors: list[str] = []
    for i, layer in enumerate(layers):
        pair = pair_of(tallies[layer.name], step.scale, ranks, i % ranks.size)
        if pair is None:
            continue
        try:
            found[i] = read_forms(layer, pair, needed)
        except Exception as error:
            errors.append(f"{layer.name}: {type(error).__name__}: {error}")
    if ranks.sum(found.new_tensor(float(len(errors)))):
        number, error = next((n, each[0]) for n, each in enumerate(ranks.tell(errors)) if each)
        raise RuntimeError(f"rank {number} could not compute the closed forms of {error}")
    for layer, (plain, in_metric) in zip(layers, ranks.sum(found), strict=True):
        for k, choice in enumerate(needed):
            know_variance(choice, layer.moments, plain[k])
            if layer.metric is not None:
                know_variance(choice, layer.metric.moments, in_metric[k])


def pair_of(
    tally: Tally, scale: Tensor | float, ranks: Ranks, to: int
) -> tuple[Tensor, Tensor] | None:
    """X and Y of all ranks, in the scale of their averaged gradient, on one of them."""
    pairs = [use.pair for use in tally.uses if use.pair is not None]
    x, y = (ranks.gather_rows(joined(side), to) for side in zip(*pairs, strict=True))
    return None if x is None or y is None else (x, wide(y) / (scale * ranks.size))


def read_forms(
    layer: Layer, pair: tuple[Tensor, Tensor], needed: Sequence[Choice]
) -> Float[Tensor, "2 K"]:
    """The variance of each choice, and that in the layer's metric if it has one."""
    m, metric = layer.moments, layer.metric
    whole = [Moments(m.p, m.q, m.x_sq, m.y_sq, m.C, pair)]
    if metric is not None:
        of = metric.moments
        whole.append(Moments(m.p, m.q, m.x_sq, m.y_sq, pair=pair, metric=of.metric, G=of.G))
    found = m.C.new_zeros(2, len(needed))
    for row, each in zip(found, whole, strict=False):
        row.copy_(torch.stack([variance_of(choice, each) for choice in needed]))
    return found
