"""Sums by example over the uses of a weight."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis import noise
from sketchvar.analysis.probe.watch import Use


def sum_by_example(uses: Sequence[Use], rows: Float[Tensor, "n d"]) -> Float[Tensor, "d S"]:
    """Numbers of rows, of all uses one after another, summed over those of each example; the uses
    of one backward pass have the same examples.
    """
    passes: dict[int, Tensor] = {}
    for use, part in zip(uses, rows.split([len(use.x_norm) for use in uses]), strict=True):
        passes[use.task] = use.sum_by_example(part) + passes.get(use.task, 0)
    return joined(list(passes.values()), 1)


def inner_products(uses: Sequence[Use], gradient: Tensor) -> Float[Tensor, " S"]:
    """⟨g_s, G⟩ of each example, from the ``gradient`` of the weight; the uses have their pairs."""
    each = []
    for use in uses:
        assert use.pair is not None
        g = use.form.matrix(gradient).to(use.pair[0].dtype)
        each.append(noise.inner_products(*use.pair, g))
    return sum_by_example(uses, joined(each)[:, None])[0]


def joined(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """One after another; no copy of a single one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors), dim)
