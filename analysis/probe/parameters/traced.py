"""Traced: a tensor that knows which parameters it is made of, or which examples its rows are of.

Within the forward of a module its parameters are such tensors. What is made of parameters alone is
the same for all examples; where it meets them it is told apart: one copy for each (``expand``,
which takes no memory), so that autograd itself hands over the gradient of each copy, or by the
``RULES`` of functions that take no copies.
"""

from typing import Any, Protocol

import torch
from torch import Tensor


class Origin(Protocol):
    """What a traced tensor knows."""

    @property
    def tracer(self) -> "Traces":
        """Who runs its functions."""


class Traces(Protocol):
    """Who runs the functions that a traced tensor is given to."""

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Do what ``func(*args, **kwargs)`` does, with no function traced by itself."""


class Traced(Tensor):
    """Its ``origin`` is None where nothing is known, as after ``copy.copy``."""

    origin: Any = None

    @classmethod
    def of(cls, t: Tensor, origin: Origin) -> "Traced":
        """The same tensor, traced."""
        found = t.as_subclass(cls)
        found.origin = origin
        return found

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in ATTRIBUTES:
                return func(*args, **kwargs)
            given = traced_in(args, kwargs)
            tracer = next((t.origin.tracer for t in given if t.origin is not None), None)
            if tracer is None or not torch.is_grad_enabled():
                return func(*args, **kwargs)
            return tracer.call(func, args, kwargs)


ATTRIBUTES = {
    getattr(Tensor, name).__get__
    for name in (
        "shape", "ndim", "dtype", "device", "requires_grad", "is_leaf", "grad", "grad_fn", "layout",
        "is_sparse", "is_cuda", "is_quantized", "is_nested", "itemsize", "nbytes", "_base",
        "is_meta", "is_mps", "is_xpu", "output_nr", "_version", "is_mkldnn",
    )
} | {
    Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_contiguous, Tensor.__len__,
    Tensor.storage_offset, Tensor.is_floating_point, Tensor.is_complex, Tensor.element_size,
    Tensor.data_ptr, Tensor.get_device, Tensor.nelement, Tensor.__hash__, Tensor.untyped_storage,
    Tensor.register_hook, Tensor.detach, Tensor.tolist, Tensor.item, torch.is_floating_point,
}  # fmt: skip


def traced_in(args: Any, kwargs: Any) -> list[Traced]:
    """The traced tensors among arguments, in lists and tuples too."""
    return [t for t in tensors_in([*args, *kwargs.values()]) if isinstance(t, Traced)]


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors among values, in lists and tuples too."""
    found: list[Tensor] = []
    for each in values:
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, list | tuple):
            found += tensors_in(each)
    return found


def plain(t: Tensor) -> Tensor:
    """The tensor without what it knows."""
    with torch._C.DisableTorchFunctionSubclass():
        return t.as_subclass(Tensor) if isinstance(t, Traced) else t
