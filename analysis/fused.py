"""A linear layer whose backward pass forms the weight gradient example by example, and so has ‖g_s‖² for free."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from estimators.moments import norm, wide

CHUNK = 2**18  # numbers of per-example gradients held at once: they stay in cache
OnBackward = Callable[[Tensor, Tensor, Tensor], None]


class FusedLinear(torch.autograd.Function):
    """``F.linear``, but dW is summed from per-example products: equal up to the rounding of that sum.

    ``on_backward`` is given X (S × … × p), Y (S × … × q) and ‖X_sᵀY_s‖² (S). The products cost what dW costs in any
    case; what is added is one pass over them, against a third more work where they are formed beside autograd's.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, on_backward: OnBackward) -> Tensor:
        out = F.linear(x, weight, bias)
        if out._is_view():  # autograd lets nobody write in place to a view that a function returns
            out = torch.ops.aten._unsafe_view(out, out.shape)
        # under autocast the product ran in the dtype of the output, and so has to run its gradient
        ctx.save_for_backward(x.to(out.dtype), weight)
        ctx.on_backward = on_backward
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        need_x, _, need_bias, _ = ctx.needs_input_grad
        gradient, example_sq = per_example(x.flatten(1, -2), y.flatten(1, -2))
        ctx.on_backward(x, y, example_sq)
        return (
            y @ weight.to(y.dtype) if need_x else None,
            gradient.to(weight.dtype),
            y.flatten(0, -2).sum(0) if need_bias else None,
            None,
        )


def per_example(
    x: Float[Tensor, "S T p"], y: Float[Tensor, "S T q"]
) -> tuple[Float[Tensor, "q p"], Float[Tensor, " S"]]:
    """(XᵀY)ᵀ in the dtype of X and ‖X_sᵀY_s‖² in float64, from products of a few examples at a time."""
    total = wide(x.new_zeros(y.shape[-1], x.shape[-1]))
    squares = []
    step = max(1, CHUNK // total.numel())
    for a, b in zip(x.split(step), y.split(step), strict=True):
        products = wide(b.mT @ a).flatten(1)
        squares.append(norm(products, dim=1))
        total.view(-1).addmv_(products.T, products.new_ones(len(products)))  # a sum in one pass over memory
    return total.to(x.dtype), torch.cat(squares).double().square()


def pays(examples: int, rows: int, p: int, q: int) -> bool:
    """Whether per-example products of T rows cost less than the Gram matrices of ``noise.example_sq``.

    Measured on one CPU core: 9 ps per operation of a Gram matrix, 0.45 ns per entry for a pass over the products.
    """
    return examples > 0 and rows * rows * (p + q) > 25 * p * q
