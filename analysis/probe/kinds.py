"""Kinds of modules that multiply rows by a weight matrix: which weights they have, and where the
products happen.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol
from unittest.mock import patch

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import ParametrizationList

from sketchvar.estimators.layers.forms import Conv1DForm, Form, LinearForm, conv2d_form
from sketchvar.estimators.layers.linear import base_of

REPLACED = (
    "its forward was replaced on the instance, as accelerate's hooks do (device_map, offload)"
)


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


@dataclass(frozen=True)
class Kind(ABC):
    """How one kind of module runs; ``owner`` is the class whose forward it has."""

    owner: type[nn.Module]

    def weights(self, name: str, module: Any) -> dict[str, tuple[nn.Module, str]]:
        """Name of each layer -> the module that owns its weight, and the weight's name there."""
        return {name: (module, "weight")}

    @abstractmethod
    def run(self, module: Any, plain: Any, see: See, args: Any, kwargs: Any) -> Any:
        """Do what ``plain(module, *args, **kwargs)`` does, every product by ``see``."""


@dataclass(frozen=True)
class Dense(Kind):
    """``nn.Linear`` and Hugging Face's ``Conv1D``."""

    form: Form

    def run(self, module: Any, plain: Any, see: See, args: Any, kwargs: Any) -> Any:
        x = only_tensor(args, kwargs)
        if x is None:
            return plain(module, *args, **kwargs)
        return see(module, "weight", self.form, x, module.weight, module.bias)


@dataclass(frozen=True)
class Convolution(Kind):
    """``nn.Conv2d`` without groups: a row is the patch under one output pixel."""

    def run(self, module: Any, plain: Any, see: See, args: Any, kwargs: Any) -> Any:
        x = only_tensor(args, kwargs)
        if x is None or x.ndim not in (3, 4):
            return plain(module, *args, **kwargs)
        form, x = conv2d_form(module, x)
        if x.ndim == 4:
            return see(module, "weight", form, x, module.weight, module.bias)
        return see(module, "weight", form, x[None], module.weight, module.bias)[0]


@dataclass(frozen=True)
class Attention(Kind):
    """``nn.MultiheadAttention``, which calls no module for its projections: its calls of
    ``F.linear`` are caught.

    Where query, key and value are not one tensor, the parts of ``in_proj_weight`` are layers of
    their own.
    """

    def weights(self, name: str, module: Any) -> dict[str, tuple[nn.Module, str]]:
        stem = f"{name}." if name else ""
        keys = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        inputs = {
            stem + key.removesuffix("_weight"): (module, key)
            for key in keys
            if is_parameter(module, key)
        }
        out = {f"{stem}out_proj": (module.out_proj, "weight")}
        return inputs | (out if is_parameter(module.out_proj, "weight") else {})

    def run(self, module: Any, plain: Any, see: See, args: Any, kwargs: Any) -> Any:
        linear = F.linear
        batched: tuple[int, ...] = ()  # L × N, of the query, in whose order the output's rows are

        def catch(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            nonlocal batched
            flipped = module.batch_first and x.ndim == 3
            if weight is module.out_proj.weight and batched:
                rows = x.view(*batched, x.shape[-1])
                flipped = module.batch_first and rows.ndim == 3
                out = see(
                    module.out_proj, "weight", LinearForm(), rows, weight, bias, flipped=flipped
                )
                return out.reshape(x.shape[0], out.shape[-1])
            base: Any = weight if weight._base is None else weight._base
            for key, owned in module.named_parameters(recurse=False):
                if owned.ndim == 2 and base is owned:
                    batched = batched or tuple(x.shape[:-1])
                    first = weight.storage_offset() // owned.shape[1]
                    part = None if weight is owned else slice(first, first + len(weight))
                    return see(module, key, LinearForm(), x, weight, bias, part, flipped)
            return linear(x, weight, bias)

        with patch.object(F, "linear", catch):
            return plain(module, *args, **kwargs)


def only_tensor(args: Any, kwargs: Any) -> Tensor | None:
    """The one tensor that a layer is called with, or None where it is called otherwise."""
    given = (*args, *(kwargs[key] for key in kwargs if key in ("input", "x")))
    alone = len(given) == len(args) + len(kwargs) == 1 and isinstance(given[0], Tensor)
    return given[0] if alone else None


def is_parameter(module: nn.Module, key: str) -> bool:
    """Whether the module owns a parameter of this name."""
    return isinstance(module._parameters.get(key), nn.Parameter)


def kind_of(module: nn.Module) -> Kind | str:
    """The kind of a module, or why it has none."""
    if "forward" in vars(module):
        return REPLACED
    if isinstance(module, nn.MultiheadAttention):
        known = type(module).forward is nn.MultiheadAttention.forward
        if not known:
            return f"{type(module).__name__} has a forward of its own"
        kind: Kind = Attention(nn.MultiheadAttention)
        return kind if kind.weights("", module) else "its weights are no parameters of its own"
    base = base_of(type(module))
    if base is not None and not is_parameter(module, "weight"):
        return (
            "its weight is no parameter of its own but made of others, as by weight_norm,"
            " spectral_norm, pruning, a parametrization or a flat parameter"
        )
    if base is nn.Linear:
        return Dense(base, LinearForm())
    if base is nn.Conv2d:
        groups: Any = module.groups
        return (
            Convolution(base)
            if groups == 1
            else f"its {groups} groups are as many products, not one"
        )
    if base is not None:
        return Dense(base, Conv1DForm())
    if isinstance(module, nn.Linear | nn.Conv2d):
        return f"{type(module).__name__} has a forward of its own"
    if isinstance(module, ParametrizationList):
        return "a parametrization makes the layer's weight of it"
    return f"{type(module).__name__} is no kind of module that the probe knows"
