"""Lookup: rows of a table that examples pick, as an embedding does; its gradient by example."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sketchvar.analysis.probe.product import Product, chunks
from sketchvar.estimators.norms import wide


class Lookup(NamedTuple):
    """The rows that each example picked, and the gradients of what it got; 0 of padding."""

    ids: Int[Tensor, "S T"]
    y: Float[Tensor, "S T d"]


def joined(parts: Sequence[Lookup]) -> Lookup:
    """All lookups of the same examples as one."""
    if len(parts) == 1:
        return parts[0]
    return Lookup(torch.cat([each.ids for each in parts], 1), torch.cat([p.y for p in parts], 1))


def lookup_sq(parts: Sequence[Lookup]) -> Float[Tensor, " S"]:
    """‖g_s‖² of each example: Σ over the table's rows of ‖Σ of the gradients that it got‖².

    Rows are told apart by sorting within the example, so that nothing waits for the device.
    """
    ids, y = joined(parts)
    count, length = ids.shape
    if not ids.numel():
        return y.new_zeros(count, dtype=torch.float64)
    order = ids.sort(1)
    new = torch.ones_like(order.values)
    new[:, 1:] = order.values[:, 1:] != order.values[:, :-1]
    place = new.cumsum(1) - 1 + torch.arange(count, device=ids.device)[:, None] * length
    at = torch.empty_like(place).scatter_(1, order.indices, place).flatten()
    sums = wide(y).new_zeros(count * length, y.shape[2]).index_add_(0, at, wide(y).flatten(0, 1))
    return sums.view(count, -1).double().square().sum(1)


def lookup_inner(parts: Sequence[Lookup], G: Float[Tensor, "V d"]) -> Float[Tensor, " S"]:
    """⟨g_s, G⟩ of each example."""
    ids, y = joined(parts)
    return (wide(G)[ids.clamp(min=0)] * wide(y)).flatten(1).sum(1, dtype=torch.float64)


def cross(product: Product, lookup: Lookup) -> Float[Tensor, " S"]:
    """⟨Y_sᵀX_s, g_s⟩ of a product and a lookup with the same table, as tied embeddings have:
    Σ over rows t and picks u of Y[t, id_u] ⟨x_t, y_u⟩.
    """
    ids, e = lookup
    count = len(ids)
    flipped = product.form.matrix(product.x.new_empty(2, 1)).shape == (2, 1)  # the weight is p × q
    parts = [e.new_zeros(0, dtype=torch.float64)]
    for examples in chunks(count, max(1, 2**22 // max(1, ids.shape[1] * ids.shape[1]))):
        x, y = (wide(t) for t in product.of(examples))
        if flipped:
            x, y = y, x
        at = ids[examples].clamp(min=0)
        picked = y.gather(2, at[:, None].expand(-1, y.shape[1], -1))
        parts.append((picked * (x @ wide(e[examples]).mT)).sum((1, 2), dtype=torch.float64))
    return torch.cat(parts)
