"""Products with a parameter, whole, or with one of several matrices that it holds."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sketchvar.analysis.probe.parameters.follow import number_rows
from sketchvar.analysis.probe.parameters.origin import ROWS, Rows, is_shared, sum_rows
from sketchvar.analysis.probe.parameters.routed import Routed
from sketchvar.analysis.probe.parameters.traced import Traced, plain
from sketchvar.analysis.probe.product import Product
from sketchvar.estimators.layers.forms import Conv1DForm, Form, LinearForm

EXPERTS = (
    "it holds several matrices, and of which example the rows are that each of them meets in {} is"
    " not known"
)


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
    """A product of rows with a matrix: a parameter, one of several in it, or made of it."""
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
    return out if rows is None else number_rows(out, rows)


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
    return number_rows(out, rows)
