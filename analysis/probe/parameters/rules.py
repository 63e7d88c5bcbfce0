"""Rules: the gradients by example of functions that take no copy of a parameter for each.

Each is called as the function is, with the tracer before, runs it, and has its output's gradient
read; NotImplemented where the function is best treated as any other.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sketchvar.analysis.probe.parameters.lookup import Lookup
from sketchvar.analysis.probe.parameters.norms import batch_norm, group_norm, layer_norm, rms_norm
from sketchvar.analysis.probe.parameters.origin import Root, Shared, rows_of
from sketchvar.analysis.probe.parameters.products import addmm, grouped_mm, linear, matmul
from sketchvar.analysis.probe.parameters.traced import Traced, plain

BY_COUNT = "scale_grad_by_freq counts over the batch, which makes examples depend on each other"


def embedding(
    tracer: Any, input: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Any:  # fmt: skip
    """‖g_s‖²: Σ over the rows of the table of ‖Σ of the gradients that the example gave it‖²."""
    table = plain(weight)
    given = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    out = F.embedding(input, table, *given)
    origin = weight.origin
    if not origin.whole:
        return tracer.made_of(out, [weight], F.embedding, ())
    root = origin.roots[0]
    if scale_grad_by_freq:
        tracer.fail(weight, BY_COUNT)
        return out
    skipped = None if padding_idx is None else padding_idx % len(table)
    unit = tracer.ledger.picks(input)
    if isinstance(unit, str):
        tracer.fail(weight, unit)
        return out
    if unit is None:

        def take(g: Tensor) -> None:
            ids = input.flatten().expand(len(g), -1)
            tracer.parts(root.account).lookups.append(
                lookup(ids, g.reshape(*ids.shape, table.shape[1]), skipped)
            )

        return Traced.of(out, Shared(tracer, (Root(out, root.account, take),), whole=True))
    held = tracer.keep(input)

    def take_all(y: Tensor) -> None:
        ids = rows_of(unit, held()[..., None])[..., 0]
        tracer.parts(root.account).lookups.append(lookup(ids, rows_of(unit, y), skipped))

    return tracer.read(out, origin.roots, take_all)


def lookup(ids: Tensor, y: Tensor, skipped: int | None) -> Lookup:
    """A lookup, without what it got for a row that has no gradient."""
    return Lookup(ids, y if skipped is None else y * (ids != skipped)[..., None])


RULES: dict[Any, Callable[..., Any]] = {
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    torch.rms_norm: rms_norm,
    F.group_norm: group_norm,
    F.batch_norm: batch_norm,
    F.embedding: embedding,
    F.linear: linear,
    torch.addmm: addmm,
    **dict.fromkeys((torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.mm), matmul),
    torch.Tensor.__matmul__: matmul,
}
if hasattr(torch, "_grouped_mm"):  # which F.grouped_mm calls
    RULES[torch._grouped_mm] = grouped_mm
