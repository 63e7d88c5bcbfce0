"""What one batch says of every layer, and what it would say without each of its examples."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch._C import _functorch as functorch

from sketchvar.analysis.noise.closed import over_draws, weighted_parts
from sketchvar.analysis.noise.layer import Layer
from sketchvar.estimators import Choice, Moments
from sketchvar.estimators.metric import EUCLIDEAN, Metric


class Sums(NamedTuple):
    """Statistics of L layers: of all S examples in the first entry of the last dimension, and in
    the others without each of them, in the scale of the whole batch.

    Without example s are G, ‖X‖², ‖Y‖² and D those of the rest times 1/(1 − w_s), so that n stays;
    w_s is the example's part of the batch, 1/S unless examples have weights. Rows that belong to no
    example stay too. ⟨g_s, G⟩ is taken to be ‖g_s‖² where it is not known, as it is on average
    where the gradient is small beside its noise. NaN without an example where the examples are not
    known, or are not as many as in most layers.
    """

    Q: Float[Tensor, "L 1+S"]
    C: Float[Tensor, "L 1+S"]
    D: Float[Tensor, "L 1+S"]
    row: Float[Tensor, "L 1+S"]
    example: Float[Tensor, "L 1+S"]

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> "Sums":
        """Of these layers; nothing is read from the device."""
        m, device = [layer.moments for layer in layers], layers[0].moments.C.device
        squares = [layer.example_sq for layer in layers]
        none = torch.full((), torch.nan, dtype=torch.float64, device=device)

        X, Y = (
            column(device, [one.x_sq.sum() for one in m]),
            column(device, [one.y_sq.sum() for one in m]),
        )
        D, C = (
            column(device, [one.D if one.knows("rows_sq") else none for one in m]),
            column(device, [one.C for one in m]),
        )
        E = column(device, [none if each is None else each.sum() for each in squares])
        sizes = [
            (a.rows, 0 if e is None else len(e), a.resolution)
            for a, e in zip(layers, squares, strict=True)
        ]
        n, count, least = torch.tensor(sizes, dtype=torch.float64, device=device).T[..., None]
        example, size = over_draws(E, C, count, least), count_examples(layers)
        if not size:
            return cls(Q_of(m, X * Y), C, D, over_draws(D, C, n, least), example)
        parts = torch.stack([parts_of(layer, size).to(device) for layer in layers])
        x, y, d, e, inner, w = parts.unbind(1)
        left = 1 / (1 - w)
        X, Y, D = (
            torch.cat([whole, whole + left * (w * part.sum(1, keepdim=True) - part)], 1)
            for whole, part in ((X, x), (Y, y), (D, d))
        )
        weighted = [[layer.weights is not None] for layer in layers]
        at = torch.tensor(weighted, device=device) if [True] in weighted else None
        example, C = without_each(C, example, e, inner, w, at)
        row = over_draws(D, C, n, least)
        return cls(Q_of(m, X * Y), C, D, row, example)


def without_each(
    C: Float[Tensor, "L 1"],
    example: Float[Tensor, "L 1"],
    e: Float[Tensor, "L S"],
    inner: Float[Tensor, "L S"],
    w: Float[Tensor, "L S"],
    weighted: Bool[Tensor, "L 1"] | None,
) -> tuple[Float[Tensor, "L 1+S"], Float[Tensor, "L 1+S"]]:
    """The minibatch variance ``example`` and ‖G‖² = C, then both without each example, of ‖g_s‖²,
    ⟨g_s, G⟩ and the parts w_s, by which the gradients ``weighted`` are a mean over tokens.
    """
    size, left = e.shape[1], 1 / (1 - w)
    rest = C - 2 * inner + e  # ‖G − g_s‖²
    without = (e.sum(1, keepdim=True) - e - rest / (size - 1)) * (size / (size - 2))
    if weighted is not None:
        of = weighted_parts(e, inner, w, C)
        example = torch.where(weighted, of.sum(1, keepdim=True), example)
        without = torch.where(weighted, (example - of) * left, without)
    return torch.cat([example, without], 1), torch.cat([C, rest * left.square()], 1)


def Q_of(m: Sequence[Moments], products: Float[Tensor, "L some"]) -> Float[Tensor, "L some"]:
    """Q of each layer: the ``products`` ‖X‖²‖Y‖², but in another metric, where Q is none, what is
    known of all examples, and NaN without one.
    """
    if all(one.plain for one in m):
        return products
    known = [one.Q if one.knows("Q") else torch.full_like(one.C, torch.nan) for one in m]
    found = torch.full_like(products, torch.nan)
    found[:, 0] = torch.stack([t.to(found.device) for t in known])
    return found


def variances_in_metric(
    layers: Sequence[Layer], chosen: Sequence[Choice]
) -> tuple[Float[Tensor, "K L 1+S"], Float[Tensor, "1 L 1+S"]]:
    """The variance of each choice, and of the minibatch, in the metric of each layer; NaN where it
    has none, and without an example where the closed form asks for Q.
    """
    C = layers[0].moments.C
    at = [i for i, layer in enumerate(layers) if layer.metric is not None]
    if not at or not chosen:
        none = C.new_full((max(len(chosen), 1), len(layers), 1), torch.nan)
        return none[: len(chosen)], none[:1]
    of = [layer.metric for layer in layers if layer.metric is not None]
    sums = Sums.of(of)
    variance = C.new_full((len(chosen), len(layers), sums.C.shape[1]), torch.nan)
    example = torch.full_like(variance[:1], torch.nan)
    variance[:, at] = variances(of, chosen, sums).to(C.device)
    example[0, at] = sums.example.to(C.device)
    return variance, example


def column(device: torch.device, numbers: Sequence[Tensor]) -> Float[Tensor, "L 1"]:
    """One number of each layer, on one device: layers may be on several."""
    return torch.stack([t.to(device) for t in numbers])[:, None]


def count_examples(layers: Sequence[Layer]) -> int:
    """How many examples most layers have; 0 where they are too few to leave one out."""
    sizes = Counter(layer.sums.shape[1] for layer in layers if layer.sums is not None)
    size = sizes.most_common(1)[0][0] if sizes else 0
    return size if size > 2 else 0


def parts_of(layer: Layer, size: int) -> Float[Tensor, "6 S"]:
    """‖X_s‖², ‖Y_s‖², D_s, ‖g_s‖², ⟨g_s, G⟩ and w_s of each example; NaN where they are not of
    ``size`` examples.
    """
    sums, squares, inner, w = layer.sums, layer.example_sq, layer.inner, layer.weights
    if sums is None or squares is None or sums.shape[1] != size:
        return torch.full((6, size), torch.nan, dtype=torch.float64)
    w = torch.full_like(squares, 1 / size) if w is None else w
    return torch.cat([sums, torch.stack([squares, squares if inner is None else inner, w])])


def variances(
    layers: Sequence[Layer], chosen: Sequence[Choice], sums: Sums
) -> Float[Tensor, "K L 1+S"]:
    """The variance of each choice in each layer: without each example too where its closed form
    asks for n, p, q, Q, C and D alone, else NaN there.

    Layers of one size are computed together. Uses of a weight draw each for itself: their variances
    add, and are not known without an example.
    """
    found = sums.C.new_full((len(chosen), *sums.C.shape), torch.nan)
    alone: dict[tuple[int, int, int], list[int]] = {}
    for i, layer in enumerate(layers):
        m = layer.moments
        if len(layer.parts) > 1 or found.shape[2] == 1:  # or there is no example to leave out
            for k, choice in enumerate(chosen):
                found[k, i, 0] = sum(variance_of(choice, part) for part in layer.parts or (m,))
        else:
            alone.setdefault((m.n, m.p, m.q), []).append(i)
    for size, places in alone.items():
        at = torch.tensor(places, device=found.device)
        shape, metric = (len(places), found.shape[-1]), layers[places[0]].moments.metric
        Q, C, D = (t[at].flatten() for t in (sums.Q, sums.C, sums.D))
        of_all = variances_of_sums(chosen, size, Q, C, D, metric)
        block = found.new_full((len(chosen), *shape), torch.nan)
        for k, choice in enumerate(chosen):
            if (each := of_all.get(choice)) is not None:
                block[k] = each.view(shape)
            else:
                one = [variance_of(choice, layers[i].moments) for i in places]
                block[k, :, 0] = torch.stack([t.to(found.device) for t in one])
        found[:, at] = block
    return found


def variance_of(choice: Choice, m: Moments) -> Float[Tensor, ""]:
    """The closed form of one layer, an oracle told of its Y; what ``know_variance`` said, if it
    did.
    """
    return m.once(choice, lambda: choice.told(m.y_sq).variance(m))


def know_variance(choice: Choice, m: Moments, variance: Float[Tensor, ""]) -> None:
    """Have moments know a closed form that was computed elsewhere, from X and Y themselves."""
    m.once(choice, lambda: variance)


def variances_of_sums(
    chosen: Sequence[Choice],
    size: tuple[int, int, int],
    Q: Float[Tensor, " some"],
    C: Float[Tensor, " some"],
    D: Float[Tensor, " some"],
    metric: Metric = EUCLIDEAN,
) -> dict[Choice, Float[Tensor, " some"]]:
    """The closed forms of choices that ask for no more than n, p, q, Q, C and D."""
    found, count = {}, len(Q)
    # as torch.vmap does, whose helpers are circles of references that outlive a step
    level = functorch._vmap_increment_nesting(count, "error")
    try:
        each = [functorch._add_batch_dim(t, 0, level) for t in (Q, C, D)]
        m = Moments.of_sums(*size, each[0], each[1], each[2], metric)
        for choice in chosen:
            # an oracle, or one that asks for rows, or reads its moments from the device
            with contextlib.suppress(Exception):
                variance = choice.told().variance(m)
                if variance.shape == ():
                    found[choice] = functorch._remove_batch_dim(variance, level, count, 0)
    finally:
        functorch._vmap_decrement_nesting()
    return found
