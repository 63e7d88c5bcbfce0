"""Kinds of modules that multiply rows by a weight matrix: which weights they have, and where the
products happen.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from unittest.mock import patch

from torch import Tensor, nn
from torch.nn import functional as F

from sketchvar.estimators.layers.forms import Conv1DForm, Form, LinearForm, conv2d_form
from sketchvar.estimators.layers.linear import base_of


class See(Protocol):
    """Runs one product, ``form.run(x, weight, bias)``, and watches it."""

    def __call__(
        self,
        owner: nn.Module,
        parameter: str,
        form: Form,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        part: slice | None = ...,
        flipped: bool = ...,
    ) -> Tensor:
        """``weight`` is ``part`` of ``owner.parameter``; ``flipped`` rows have their first two
        dimensions exchanged.
        """
        ...


class Kind(ABC):
    """How one kind of module runs."""

    @abstractmethod
    def weights(self, name: str, module: Any) -> dict[str, tuple[nn.Module, str]]:
        """Name of each layer -> the module that owns its weight, and the weight's name there."""

    @abstractmethod
    def forward(self, module: Any, see: See) -> Callable[..., Any]:
        """What does the same as ``module.forward``, every product by ``see``."""


@dataclass(frozen=True)
class Dense(Kind):
    """``nn.Linear`` and Hugging Face's ``Conv1D``."""

    form: Form

    def weights(self, name: str, module: Any) -> dict[str, tuple[nn.Module, str]]:
        return {name: (module, "weight")}

    def forward(self, module: Any, see: See) -> Callable[..., Any]:
        def forward(*args: Tensor, **kwargs: Tensor) -> Tensor:
            (x,) = args or kwargs.values()
            return see(module, "weight", self.form, x, module.weight, module.bias)

        return forward


@dataclass(frozen=True)
class Convolution(Kind):
    """``nn.Conv2d`` without groups: a row is the patch under one output pixel."""

    def weights(self, name: str, module: Any) -> dict[str, tuple[nn.Module, str]]:
        return {name: (module, "weight")}

    def forward(self, module: Any, see: See) -> Callable[..., Any]:
        def forward(input: Tensor) -> Tensor:
            form, x = conv2d_form(module, input)
            if x.ndim == 4:
                return see(module, "weight", form, x, module.weight, module.bias)
            return see(module, "weight", form, x[None], module.weight, module.bias)[0]

        return forward


@dataclass(frozen=True)
class Attention(Kind):
    """``nn.MultiheadAttention``, which calls no module for its projections: its calls of
    ``F.linear`` are caught.

    Where query, key and value are not one tensor, the parts of ``in_proj_weight`` are layers of
    their own.
    """

    def weights(self, name: str, module: Any) -> dict[str, tuple[nn.Module, str]]:
        stem = f"{name}." if name else ""
        inputs = {
            stem + key.removesuffix("_weight"): (module, key)
            for key in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
            if module._parameters[key] is not None
        }
        return inputs | {f"{stem}out_proj": (module.out_proj, "weight")}

    def forward(self, module: Any, see: See) -> Callable[..., Any]:
        plain, linear = module.forward, F.linear

        def forward(*args: Any, **kwargs: Any) -> Any:
            batched: tuple[
                int, ...
            ] = ()  # L × N, of the query, in whose order the rows of the output are

            def caught(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
                nonlocal batched
                flipped = module.batch_first and x.ndim == 3
                if weight is module.out_proj.weight:
                    rows = x.view(*batched, x.shape[-1])
                    flipped = module.batch_first and rows.ndim == 3
                    out = see(
                        module.out_proj, "weight", LinearForm(), rows, weight, bias, flipped=flipped
                    )
                    return out.reshape(x.shape[0], -1)
                base: Any = weight if weight._base is None else weight._base
                for key, owned in module.named_parameters(recurse=False):
                    if owned.ndim == 2 and base is owned:
                        batched = batched or tuple(x.shape[:-1])
                        first = weight.storage_offset() // owned.shape[1]
                        part = None if weight is owned else slice(first, first + len(weight))
                        return see(module, key, LinearForm(), x, weight, bias, part, flipped)
                return linear(x, weight, bias)

            with patch.object(F, "linear", caught):
                return plain(*args, **kwargs)

        return forward


def kind_of(module: nn.Module) -> Kind | str:
    """The kind of a module, or why it has none."""
    if "forward" in vars(module):
        return "its forward was replaced on the instance"
    if isinstance(module, nn.MultiheadAttention):
        known = type(module).forward is nn.MultiheadAttention.forward
        return Attention() if known else f"{type(module).__name__} has a forward of its own"
    base = base_of(type(module))
    if base is nn.Linear:
        return Dense(LinearForm())
    if base is nn.Conv2d:
        groups = module.groups
        return (
            Convolution() if groups == 1 else f"its {groups} groups are as many products, not one"
        )
    if base is not None:
        return Dense(Conv1DForm())
    if isinstance(module, nn.Linear | nn.Conv2d):
        return f"{type(module).__name__} has a forward of its own"
    return f"{type(module).__name__} is no kind of module that the probe knows"
