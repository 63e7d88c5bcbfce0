"""Rules: the gradients by example of functions that take no copy of a parameter for each.

Each is called as the function is, with the tracer before, runs it, and has its output's gradient
read; NotImplemented where the function is best treated as any other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sketchvar.analysis.probe.parameters.lookup import Lookup
from sketchvar.analysis.probe.parameters.origin import Root, Rows, Shared
from sketchvar.analysis.probe.parameters.routed import Routed
from sketchvar.analysis.probe.parameters.traced import Traced, plain
from sketchvar.analysis.probe.product import Product
from sketchvar.analysis.probe.units import Unit
from sketchvar.estimators.layers.forms import Conv1DForm, Form, LinearForm
from sketchvar.estimators.norms import wide

ROWS = "its rows stand in {}: which is of which example is not known"
EXPERTS = (
    "it holds several matrices, and of which example the rows are that each of them meets in {} is"
    " not known"
)
BY_COUNT = "scale_grad_by_freq counts over the batch, which makes examples depend on each other"


def is_shared(t: Any) -> bool:
    """Whether it is made of parameters alone."""
    return isinstance(t, Traced) and isinstance(t.origin, Shared)


def sum_rows(unit: Unit, t: Tensor) -> Tensor:
    """Rows (... × d) summed over those of each example (S × d)."""
    count = unit.count(t)
    return unit.part(t, slice(0, count)).reshape(count, -1, t.shape[-1]).sum(1)


def scale_and_shift(
    tracer: Any, out: Tensor, x: Tensor, weight: Any, bias: Any, again: Any, by_example: Any
) -> Tensor:
    """Have y·x̂ and y read, of a layer that gives x̂·weight + bias, where ``again`` makes x̂ of its
    input and ``by_example`` sums over the rest.
    """
    held = tracer.keep(x) if is_shared(weight) else None

    def take(y: Tensor) -> None:
        if held is not None:
            g = by_example(wide(y) * again(wide(held())))
            weight.origin.pull_back(weight, g.view(len(g), *weight.shape))
        if is_shared(bias):
            g = by_example(y)
            bias.origin.pull_back(bias, g.view(len(g), *bias.shape))

    roots = [root for t in (weight, bias) if is_shared(t) for root in t.origin.roots]
    return tracer.read(out, roots, take)


def layer_norm(
    tracer: Any, input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None,
    eps: Any = 1e-5, function: Any = F.layer_norm,
) -> Any:  # fmt: skip
    """γ: Σ_t x̂_t∘y_t; β: Σ_t y_t."""
    if is_shared(input):
        return NotImplemented
    given = (weight, bias) if function is F.layer_norm else (weight,)
    out, width = function(input, normalized_shape, *given, eps), len(normalized_shape)
    unit = tracer.unit(input.shape[:-width])
    if unit is None:
        for t in filter(is_shared, given):
            tracer.fail(t, ROWS.format(tuple(input.shape)))
        return out
    return scale_and_shift(
        tracer, out, input, weight, bias,
        lambda x: function(x, normalized_shape, eps=eps),
        lambda t: sum_rows(unit, t.flatten(-width)),
    )  # fmt: skip


def rms_norm(
    tracer: Any, input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None
) -> Any:
    """γ: Σ_t x̂_t∘y_t."""
    return layer_norm(tracer, input, normalized_shape, weight, None, eps, F.rms_norm)


def group_norm(
    tracer: Any, input: Any, num_groups: int, weight: Any = None, bias: Any = None,
    eps: float = 1e-5,
) -> Any:  # fmt: skip
    """The same, per channel: rows are pixels."""
    if is_shared(input) or tracer.ledger.count_in(input) is None:
        return NotImplemented
    out = F.group_norm(input, num_groups, weight, bias, eps)
    return scale_and_shift(
        tracer, out, input, weight, bias,
        lambda x: F.group_norm(x, num_groups, eps=eps), sum_pixels,
    )  # fmt: skip


def batch_norm(
    tracer: Any, input: Any, running_mean: Any, running_var: Any, weight: Any = None,
    bias: Any = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """The same, to first order where statistics are those of the batch."""
    if is_shared(input) or tracer.ledger.count_in(input) is None:
        return NotImplemented
    given = (running_mean, running_var, weight, bias, training, momentum, eps)
    out = F.batch_norm(input, *given)
    mean, var = (None, None) if training else (running_mean, running_var)
    return scale_and_shift(
        tracer, out, input, weight, bias,
        lambda x: torch.native_batch_norm(x, None, None, mean, var, training, 0.0, eps)[0],
        sum_pixels,
    )  # fmt: skip


def sum_pixels(t: Tensor) -> Tensor:
    """S × channels × ... summed over all but the first two."""
    return t.flatten(2).sum(2) if t.ndim > 2 else t


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
    unit = tracer.unit(input.shape)
    if unit is None:

        def take(g: Tensor) -> None:
            ids = input.flatten().expand(len(g), -1)
            tracer.parts(root.account).lookups.append(
                lookup(ids, g.reshape(len(g), ids.shape[1], -1), skipped)
            )

        return Traced.of(out, Shared(tracer, (Root(out, root.account, take),), whole=True))
    held = tracer.keep(input)

    def take_all(y: Tensor) -> None:
        ids = held()[..., None]
        count = unit.count(ids)
        picked = unit.part(ids, slice(0, count)).reshape(count, -1)
        g = unit.part(y, slice(0, count)).reshape(count, -1, y.shape[-1])
        tracer.parts(root.account).lookups.append(lookup(picked, g, skipped))

    return tracer.read(out, origin.roots, take_all)


def lookup(ids: Tensor, y: Tensor, skipped: int | None) -> Lookup:
    """A lookup, without what it got for a row that has no gradient."""
    return Lookup(ids, y if skipped is None else y * (ids != skipped)[..., None])


def linear(tracer: Any, input: Any, weight: Any, bias: Any = None) -> Any:
    """A product with a parameter, or with one of several matrices in it."""
    return product(tracer, F.linear, (input, weight, bias), input, weight, bias, LinearForm())


def matmul(tracer: Any, input: Any, other: Any) -> Any:
    """x @ W."""
    if not is_shared(other) or other.ndim != 2:
        return NotImplemented
    return product(tracer, torch.matmul, (input, other), input, other, None, Conv1DForm())


def addmm(tracer: Any, input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """bias + x @ W."""
    if not is_shared(mat2) or (beta, alpha) != (1, 1):
        return NotImplemented
    return product(tracer, torch.addmm, (input, mat1, mat2), mat1, mat2, input, Conv1DForm())


def product(
    tracer: Any, function: Any, given: Any, x: Any, weight: Any, bias: Any, form: Form
) -> Any:
    """A product of rows with a matrix, which is a parameter, one of several in it, or made of it."""
    if is_shared(x):
        return NotImplemented
    out = function(*given)
    if out._is_view():
        out = torch.ops.aten._unsafe_view(out, out.shape)
    shared = [t for t in (weight, bias) if is_shared(t)]
    rows = x.origin if isinstance(x, Traced) and isinstance(x.origin, Rows) else None
    unit = tracer.unit(x.shape[:-1]) if rows is None else None
    routed = is_shared(weight) and weight.origin.slot is not None
    if (rows is None and unit is None) or (routed and rows is None):
        told = EXPERTS.format("its forward") if routed else ROWS.format(tuple(x.shape))
        for t in shared:
            tracer.fail(t, told)
        return out
    held = tracer.keep(x) if is_shared(weight) else None

    def take(y: Tensor) -> None:
        if held is not None:
            take_matrix(tracer, weight, held(), y, unit, rows, form)
        if is_shared(bias):
            g = sum_rows(unit, y) if unit is not None else sum_numbered(rows, y)
            bias.origin.pull_back(bias, g)

    out = tracer.read(out, [root for t in shared for root in t.origin.roots], take)
    return out if rows is None else tracer.number_rows(out, rows)


def take_matrix(
    tracer: Any, weight: Any, x: Tensor, y: Tensor, unit: Any, rows: Any, form: Form
) -> None:
    """Tell the accounts of a product's weight of the product."""
    origin, x = weight.origin, x.to(y.dtype)
    if origin.slot is not None:
        slot = torch.as_tensor(origin.slot, device=y.device).expand(rows.numbers.numel())
        add_routed(tracer, origin, x, y, rows, slot)
    elif origin.whole and unit is not None:
        tracer.parts(origin.roots[0].account).products.append(Product(form, unit, x, y))
    elif unit is not None:
        count = unit.count(x)
        a, b = Product(form, unit, x, y).of(slice(0, count))
        g = a.mT @ b
        origin.pull_back(weight, g if isinstance(form, Conv1DForm) else g.mT)
    else:
        tracer.fail(weight, EXPERTS.format("its forward"))


def add_routed(tracer: Any, origin: Any, x: Tensor, y: Tensor, rows: Any, slot: Tensor) -> None:
    """Tell of rows that met the matrices ``slot`` of a parameter."""
    number = rows.numbers.flatten()
    flat = Routed(x.flatten(0, -2), y.flatten(0, -2), number, slot.long(), rows.examples)
    tracer.parts(origin.roots[0].account).routed.append(flat)


def sum_numbered(rows: Any, y: Tensor) -> Tensor:
    """Rows summed over those of each example; those of none are left out."""
    number = rows.numbers.flatten()
    sums = y.new_zeros(rows.examples + 1, y.shape[-1])
    return sums.index_add_(0, number % (rows.examples + 1), y.flatten(0, -2))[:-1]


def grouped_mm(tracer: Any, input: Any, mat2: Any, offs: Any = None, **others: Any) -> Any:
    """Rows sorted by the matrix that they meet, which ends at ``offs``."""
    if not is_shared(mat2) or is_shared(input):
        return NotImplemented
    out = torch._grouped_mm(plain(input), plain(mat2), offs=offs, **others)
    rows = input.origin if isinstance(input, Traced) else None
    origin = mat2.origin
    if not isinstance(rows, Rows) or not origin.slots or offs is None or input.ndim != 2:
        tracer.fail(mat2, EXPERTS.format("grouped_mm"))
        return out
    held = tracer.keep(input)

    def take(y: Tensor) -> None:
        place = torch.arange(len(y), device=y.device)
        slot = torch.bucketize(place, offs.to(place.dtype), right=True)
        inside = slot < mat2.shape[0]
        at = Rows(tracer, torch.where(inside, rows.numbers, -1), rows.examples)
        add_routed(tracer, origin, held().to(y.dtype), y, at, slot.clamp(max=mat2.shape[0] - 1))

    out = tracer.read(out, origin.roots, take)
    return tracer.number_rows(out, rows)


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
