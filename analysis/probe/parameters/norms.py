"""Normalisation layers: the gradients by example of their scales and shifts."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sketchvar.analysis.probe.parameters.origin import ROWS, is_shared, sum_rows
from sketchvar.analysis.probe.units import Dimension
from sketchvar.estimators.norms import wide


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
    """Whether autograd's own kernel can be run for one example after another: on a GPU that would
    be many small ones, and half precision would sum in it.
    """
    known = function is F.layer_norm and is_shared(weight) and is_shared(bias) and len(shape) == 1
    if not known or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    unit = tracer.unit(x.shape[:-1])
    first = isinstance(unit, Dimension) and unit.number == 0
    return first and x.dtype in (torch.float32, torch.float64) and weight.dtype == x.dtype


def layer_norm_in_one_pass(
    tracer: Any, x: Tensor, shape: Any, weight: Any, bias: Any, eps: float
) -> Tensor:
    """The same sums from the kernel that autograd runs for all examples, with no x̂ formed."""
    out, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
    held, mean, rstd = tracer.keep(x), mean.detach(), rstd.detach()

    def take(y: Tensor) -> None:
        rows, y, size = held().contiguous(), y.contiguous(), list(shape)
        given, mask = (rows.new_empty(size),) * 2, [False, True, True]  # only their shape counts
        backward = torch.ops.aten.native_layer_norm_backward
        each = [
            backward(one, of_x, size, center, spread, *given, mask)[1:]
            for one, of_x, center, spread in zip(y, rows, mean, rstd, strict=True)
        ]
        scales, shifts = (
            map(torch.stack, zip(*each, strict=True)) if each else y.new_zeros(2, 0, *size)
        )
        weight.origin.pull_back(weight, scales)
        bias.origin.pull_back(bias, shifts)

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


def sum_pixels(t: Tensor) -> Tensor:
    """S × channels × ... summed over all but the first two."""
    return t.flatten(2).sum(2) if t.ndim > 2 else t
