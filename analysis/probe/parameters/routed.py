"""Routed: rows that are sent to one of several matrices, as experts held in one parameter."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sketchvar.analysis.probe.product import Product
from sketchvar.analysis.probe.product import example_sq as squares
from sketchvar.analysis.probe.units import Numbered
from sketchvar.estimators.layers.forms import LinearForm


class Routed(NamedTuple):
    """Rows of products, each with the example that it belongs to and the matrix that it met."""

    x: Float[Tensor, "n p"]
    y: Float[Tensor, "n q"]
    number: Int[Tensor, " n"]
    slot: Int[Tensor, " n"]
    examples: int


def routed_sq(parts: Sequence[Routed]) -> Float[Tensor, " S"]:
    """‖g_s‖² of each example: Σ over the matrices e of ‖X_{s,e}ᵀY_{s,e}‖²."""
    x, y, number, slot = map(torch.cat, list(zip(*parts, strict=True))[:4])
    slots = int(slot.max()) + 1 if len(slot) else 1
    key = torch.where(number < 0, -1, number * slots + slot)
    found = x.new_zeros(parts[0].examples, dtype=torch.float64)
    groups = key[key >= 0].unique()
    if not len(groups):
        return found
    each = squares([Product(LinearForm(), Numbered.of(key), x, y)])
    return found.index_add_(0, groups // slots, each)
