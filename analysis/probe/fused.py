"""A linear layer whose backward pass forms the weight gradient example by example, and so has
‖g_s‖² for free.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis.noise.closed import LARGE, total_sq
from sketchvar.estimators.layers.forms import Form
from sketchvar.estimators.norms import wide


class Sight(Protocol):
    """Who is told of a backward pass through one product."""

    def passed(self) -> None:
        """A pass went by for the gradient of something else."""

    def root(self) -> Tensor | None:
        """√W (p × q), where per-example products are weighed too."""

    def arrived(
        self, x: Tensor, y: Tensor, example_sq: Tensor | None, weighed_sq: Tensor | None
    ) -> None:
        """X (S × … × p), Y (S × … × q) and ‖X_sᵀY_s‖² (S), plain and weighed; None where a second
        derivative will be taken.
        """

    def formed(self, gradient: Tensor) -> None:
        """The gradient of the weight, in its shape."""


class FusedLinear(torch.autograd.Function):
    """A dense layer, but dW is summed from per-example products: equal up to the rounding of that
    sum.

    ``sight`` is told of them. The products cost what dW costs in any case; what is added is one
    pass over them, against a third more work where they are formed beside autograd's.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, form: Form, sight: Sight
    ) -> Tensor:
        out = form.run(x, weight, bias)
        if out._is_view():  # autograd lets nobody write in place to a view that a function returns
            out = torch.ops.aten._unsafe_view(out, out.shape)
        # under autocast the product ran in the dtype of the output, and so has to run its gradient
        ctx.save_for_backward(x.to(out.dtype), weight)
        ctx.form, ctx.sight = form, sight
        return out

    @staticmethod
    def backward(
        ctx: Any, y: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        need_x, _, need_bias, *_ = ctx.needs_input_grad
        y = y.contiguous()
        for_weight = None
        if not torch._C._will_engine_execute_node(ctx.next_functions[1][0]):
            ctx.sight.passed()
        else:
            if torch.is_grad_enabled():  # this pass will be differentiated itself
                gradient = y.flatten(0, -2).T @ x.flatten(0, -2)
                example_sq, weighed_sq = None, None
            else:
                gradient, example_sq, weighed_sq = per_example(
                    x.flatten(1, -2), y.flatten(1, -2), ctx.sight.root()
                )
            ctx.sight.arrived(x, y, example_sq, weighed_sq)
            for_weight = ctx.form.weight_gradient(gradient.T, weight).to(weight.dtype)
            ctx.sight.formed(for_weight)
        return (
            ctx.form.input_gradient(y, weight.to(y.dtype), x.shape) if need_x else None,
            for_weight,
            y.flatten(0, -2).sum(0) if need_bias else None,
            None,
            None,
        )


def per_example(
    x: Float[Tensor, "S T p"], y: Float[Tensor, "S T q"], root: Float[Tensor, "p q"] | None = None
) -> tuple[Float[Tensor, "q p"], Float[Tensor, " S"], Float[Tensor, " S"] | None]:
    """(XᵀY)ᵀ in the dtype of X and ‖X_sᵀY_s‖² in float64, from the products of one example after
    another; with the ``root`` √W of weights ‖√W ∘ X_sᵀY_s‖² too.
    """
    pairs = zip(x, y.mT, strict=True)
    a, b = next(pairs)
    total = wide(b @ a)
    product = x.new_empty(total.shape)  # one piece of memory for all of them stays in cache
    dotted = product.dtype == total.dtype and product.numel() <= LARGE
    flat = product.view(-1)
    squares, weighed = [total_sq(total)], []
    if root is not None:
        root = root.T.to(product.dtype).contiguous()
        weighed.append(total_sq(total * root))
    for a, b in pairs:
        torch.mm(b, a, out=product)
        squares.append(flat.dot(flat) if dotted else total_sq(product))  # a dot reads once
        total.add_(product)
        if root is not None:
            product.mul_(root)
            weighed.append(flat.dot(flat) if dotted else total_sq(product))
    return total.to(x.dtype), doubles(squares), doubles(weighed) if weighed else None


def doubles(numbers: Sequence[Tensor]) -> Float[Tensor, " S"]:
    """Numbers as one tensor in float64, of which the first is so already."""
    first, *rest = numbers
    return torch.cat([first.view(1), torch.stack(rest).double()]) if rest else first.view(1)


def pays(examples: int, rows: int, p: int, q: int) -> bool:
    """Whether per-example products of T rows cost less than the Gram matrices of
    ``noise.example_sq``.

    Measured on one CPU core: 20 ps per operation of a Gram matrix, 0.4 ns per entry to go over a
    product, and as much as 2¹⁴ entries for the calls that it takes.
    """
    return examples > 0 and rows * rows * (p + q) > 20 * (p * q + 2**14)
