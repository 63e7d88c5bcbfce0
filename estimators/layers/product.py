"""The product of a sketched layer: forward, input gradient and bias gradient exact, the weight
gradient an estimate.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from sketchvar.estimators.estimator import Compressed, Estimator
from sketchvar.estimators.layers import opaque
from sketchvar.estimators.layers.fixed import is_checkpointed, pack, unpack
from sketchvar.estimators.layers.forms import Form
from sketchvar.estimators.layers.sharing import shared

NO_SECOND_DERIVATIVE = (
    "a sketched layer has no second derivative: its input is gone after the forward pass; "
    "call unsketch(model) before differentiating a gradient (create_graph=True)"
)


def product(
    layer: object,
    form: Form,
    estimator: Estimator,
    handle: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    observe: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """``form.run(x, weight, bias)``, keeping of X only what ``estimator`` needs to estimate the
    weight gradient.

    ``layer`` is who asks: the same layer never reuses what it has kept of an input. ``handle``
    stands for the estimator inside a compiled graph; ``observe`` is shown Y (n × q) in backward.
    Draws one seed from torch's default generator, whether or not it is needed, so that the stream
    is the same under checkpointing, where the first pass runs without gradients. Keeps X itself, as
    the plain layer does, where no gradient flows to the weight, the estimator would keep no less
    than the input, or the input is not ``is_plain``.
    """
    compiling = torch.compiler.is_compiling()
    if not (compiling or is_plain(x)):
        return form.run(x, weight, bias)
    dtype = product_dtype(x)
    n, p = form.size(x, weight)
    needed = (
        n * opaque.row_bytes(handle, p, dtype) if compiling else estimator.kept_bytes(n, p, dtype)
    )
    if (
        not weight.requires_grad
        or not x.is_floating_point()
        or needed >= x.numel() * dtype.itemsize
    ):
        return form.run(x, weight, bias)
    seed = None if compiling else torch.tensor(opaque.next_seed(), device="cpu")
    if not torch.is_grad_enabled():
        return form.run(x, weight, bias)
    with torch.no_grad():
        if seed is None:
            kept = opaque.compress(form.rows(x.to(dtype)), handle)
        elif observe is not None:  # its estimator is of this call only
            kept = [seed, *estimator.compress(form.rows(x.to(dtype)), int(seed)).tensors]
        else:
            kept = shared(layer, form, estimator, x, dtype, seed)
        dtypes = None
        if not compiling and estimator.traits.varying_size and is_checkpointed():
            dtypes = [t.dtype for t in kept[1:]]
            kept = [kept[0], *pack(kept[1:], n * (p * dtype.itemsize + 16))]
    return Product.apply(x, weight, bias, form, estimator, handle, observe, dtypes, *kept)


def is_plain(x: Tensor) -> bool:
    """Whether a custom Function can take ``x``: a strided tensor of numbers, outside of the
    transforms of torch.func and of forward mode, which the plain product alone can follow.
    """
    strided = x.layout is torch.strided and not x.is_nested
    return strided and not is_traceable_wrapper_subclass(x) and not is_transformed()


def is_transformed() -> bool:
    """Whether torch.func or forward mode follows what is computed now."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which a matrix product with ``x`` runs: autocast's, where it applies."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return x.dtype


class Product(torch.autograd.Function):
    """Saves the weight, the seed and the payload; the input is not needed again.

    ``dtypes`` are those of a payload that was packed, None of one that was not.
    """

    @staticmethod
    def forward(ctx: Any, x, weight, bias, form, estimator, handle, observe, dtypes, *kept):  # type: ignore[no-untyped-def]
        ctx.form, ctx.estimator, ctx.handle, ctx.observe = form, estimator, handle, observe
        ctx.dtypes = dtypes
        ctx.x_shape, ctx.x_dtype, ctx.size = x.shape, x.dtype, form.size(x, weight)
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(weight, *kept)
        return not_view(form.run(x, weight, bias))

    @staticmethod
    def backward(ctx: Any, gradient):  # type: ignore[no-untyped-def]
        weight, seed, *payload = ctx.saved_tensors
        saved = len(payload)
        if ctx.dtypes is not None:
            payload = unpack(*payload, ctx.dtypes)  # type: ignore[call-arg]
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        if needs_weight and not torch.compiler.is_compiling():  # not in a pass for other gradients
            needs_weight = is_asked_for(ctx.next_functions[1][0])
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            for_x = for_weight = for_bias = None
            y = ctx.form.gradient_rows(gradient)
            if ctx.observe is not None:
                ctx.observe(y)
            if needs_weight:
                if torch.compiler.is_compiling():
                    g = opaque.contract(payload, y, seed, ctx.handle, *ctx.size)
                else:
                    g = ctx.estimator.contract(Compressed(int(seed), ctx.size, tuple(payload)), y)
                for_weight = ctx.form.weight_gradient(g, weight).to(weight.dtype)
            if needs_bias:
                for_bias = y.sum(0).to(ctx.bias_dtype)
            if needs_x:
                for_x = ctx.form.input_gradient(
                    gradient, weight.to(gradient.dtype), ctx.x_shape
                ).to(ctx.x_dtype)
        if torch.is_grad_enabled():  # create_graph=True
            for_x, for_weight, for_bias = Refuse.apply(gradient, for_x, for_weight, for_bias)
        return for_x, for_weight, for_bias, *[None] * (6 + saved)


def is_asked_for(node: Any) -> bool:
    """Whether this backward pass computes the gradient that goes to a node."""
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # raised of a leaf that torch.autograd.grad was asked for, and only then
        return True


def not_view(out: Tensor) -> Tensor:
    """The same tensor, of which autograd does not know that it is a view: it forbids writing in
    place to a view that a custom Function returns.
    """
    if torch.compiler.is_compiling() or out._is_view():
        return torch.ops.aten._unsafe_view(out, out.shape)
    return out


class Refuse(torch.autograd.Function):
    """Hands gradients through, and raises when they are differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient, *results):  # type: ignore[no-untyped-def]
        return tuple(None if r is None else r.view_as(r) for r in results)

    @staticmethod
    def backward(ctx: Any, *gradients):  # type: ignore[no-untyped-def]
        raise NotImplementedError(NO_SECOND_DERIVATIVE)
