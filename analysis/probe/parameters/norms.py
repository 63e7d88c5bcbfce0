"""Normalisation layers: the gradients by example of their scales and shifts."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sketchvar.analysis.probe.parameters.origin import ROWS, is_shared, sum_rows
from sketchvar.analysis.probe.product import chunks
from sketchvar.analysis.probe.units import Dimension
from sketchvar.estimators.norms import wide

BLOCK = 2**17  # entries at a time: what is made of them stays in a cache


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
    if is_one_pass(tracer, input, normalized_shape, weight, bias, function):
        return layer_norm_in_one_pass(tracer, input, normalized_shape, weight, bias, eps)
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


def is_one_pass(tracer: Any, x: Tensor, shape: Any, weight: Any, bias: Any, function: Any) -> bool:
    """Whether autograd's own mean and spread of each row serve: not where it would cast them."""
    known = function is F.layer_norm and is_shared(weight) and is_shared(bias) and len(shape) == 1
    if not known or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    unit = tracer.unit(x.shape[:-1])
    first = isinstance(unit, Dimension) and unit.number == 0
    return first and x.dtype in (torch.float32, torch.float64) and weight.dtype == x.dtype


def layer_norm_in_one_pass(
    tracer: Any, x: Tensor, shape: Any, weight: Any, bias: Any, eps: float
) -> Tensor:
    """The same sums from the mean and spread of each row that autograd keeps, for as many examples
    at a time as stay in a cache.
    """
    out, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
    held, mean, rstd = tracer.keep(x), mean.detach(), rstd.detach()

    def take(y: Tensor) -> None:
        rows, y, center, spread = (by_rows(t) for t in (held(), y, mean, rstd))
        scales = y.new_empty(len(y), *shape)
        each = max(1, BLOCK // max(1, rows[:1].numel()))
        room = torch.empty_like(rows[:each])
        for of in chunks(len(y), each):
            part = room[: of.stop - of.start]
            torch.sub(rows[of], center[of], out=part)
            torch.sum(part.mul_(spread[of]).mul_(y[of]), 1, out=scales[of])
        weight.origin.pull_back(weight, scales)
        bias.origin.pull_back(bias, y.sum(1))

    return tracer.read(out, [*weight.origin.roots, *bias.origin.roots], take)


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


def by_rows(t: Tensor) -> Tensor:
    """Examples × ... × d as examples × rows × d."""
    return t.reshape(len(t), t.shape[1:-1].numel(), t.shape[-1])


def sum_pixels(t: Tensor) -> Tensor:
    """S × channels × ... summed over all but the first two."""
    return t.flatten(2).sum(2) if t.ndim > 2 else t
