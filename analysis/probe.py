"""Probe: per-layer moments of an unmodified model while it trains."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from analysis import noise
from analysis.fused import FusedLinear, pays
from estimators import Moments
from estimators.moments import norm, row_sq, wide


@dataclass(frozen=True)
class Layer:
    """What one backward pass told of one linear layer.

    ``moments`` is of X (rows of inputs) and Y (rows of output gradients); ``example_sq`` holds ‖X_sᵀY_s‖² per example,
    or is None for a probe by row; ``examples`` is their number, the first dimension of the layer's input.
    """

    name: str
    moments: Moments
    examples: int
    example_sq: Tensor | None


@dataclass
class Use:
    """One forward and backward through a layer; C comes last, with the weight gradient."""

    p: int
    q: int
    x_sq: Tensor
    y_sq: Tensor
    examples: int
    example_sq: Tensor | None
    pair: tuple[Tensor, Tensor] | None
    C: Tensor | None


@dataclass
class Watch:
    """A layer under observation; ``alone``: no other module has its weight, so C comes with the weight's gradient."""

    name: str
    module: nn.Linear
    alone: bool
    uses: list[Use] = field(default_factory=list)


class Probe:
    """Measures every ``nn.Linear`` of ``model`` during the forward and backward pass inside a ``with`` block.

        with Probe(model) as probe:
            loss(model, batch).backward()
        layers = probe.read()

    The model is unmodified and nothing is left attached after the block. Its loss and gradients are its own, but for
    the order in which a long sequence's weight gradient is summed (``FusedLinear``), which rounds differently.
    ``by_example=False`` skips the per-example norms (minibatch variance by row only). ``pairs`` names layers whose X
    and Y stay in their ``Moments``, for draws; all others keep scalars and row norms only.
    Raises ValueError for a model without a linear layer that trains, or an unknown name in ``pairs``.
    """

    def __init__(self, model: nn.Module, by_example: bool = True, pairs: Collection[str] = ()) -> None:
        self.model, self.by_example, self.pairs = model, by_example, pairs
        owners = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
        self.watched = {
            name: Watch(name, module, alone=owners[id(module.weight)] == 1)
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module.weight.requires_grad
        }
        if not self.watched:
            raise ValueError(
                f"{type(model).__name__} has no nn.Linear whose weight requires a gradient: nothing to probe"
            )
        if unknown := set(pairs) - set(self.watched):
            raise ValueError(f"no trained nn.Linear called {min(unknown)!r}; known are {', '.join(self.watched)}")
        self._handles: list[RemovableHandle] = []
        self._fused: list[nn.Linear] = []
        self._anchor = torch.zeros((), requires_grad=True)

    def __enter__(self) -> "Probe":
        for watch in self.watched.values():
            watch.uses = []
            self._handles.append(watch.module.register_forward_hook(self._on_forward(watch)))
            if self.by_example and type(watch.module) is nn.Linear and "forward" not in vars(watch.module):
                watch.module.forward = self._fused_forward(watch)  # type: ignore[assignment]
                self._fused.append(watch.module)
            if watch.alone:
                self._handles.append(watch.module.weight.register_hook(self._on_weight_gradient(watch)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()
        while self._fused:
            del self._fused.pop().forward

    def read(self) -> dict[str, Layer]:
        """Layer name -> what was measured. Layers that cannot be read are missing here and explained by coverage()."""
        return {name: self._layer(w) for name, w in self.watched.items() if self._reason(w) is None}

    def coverage(self) -> pd.DataFrame:
        """A line per weight matrix: parameter, module, share of all parameters, measured, and the reason if not."""
        total = sum(p.numel() for p in self.model.parameters())
        lines = []
        for name, module in self.model.named_modules():
            for key, weight in module._parameters.items():
                if weight is None or weight.ndim < 2:
                    continue
                if name in self.watched and key == "weight":
                    reason = self._reason(self.watched[name])
                elif isinstance(module, nn.Linear):
                    reason = "frozen: it has no gradient"
                else:
                    reason = f"not an nn.Linear but {type(module).__name__}"
                line = (f"{name}.{key}", type(module).__name__, weight.numel() / total, reason is None, reason or "")
                lines.append(line)
        return pd.DataFrame(lines, columns=["parameter", "module", "share", "measured", "reason"])

    def _reason(self, watch: Watch) -> str | None:
        """Why a watched layer cannot be read, or None."""
        if not watch.uses:
            return "no gradient reached it inside the with block"
        if len(watch.uses) > 1:
            return f"used {len(watch.uses)} times inside the with block; one product XᵀY is measured at a time"
        if watch.uses[0].C is None:
            return "its weight gradient was not formed"
        return None

    def _layer(self, watch: Watch) -> Layer:
        (use,) = watch.uses
        moments = Moments(use.p, use.q, use.x_sq, use.y_sq, use.C, use.pair)
        return Layer(watch.name, moments, use.examples, use.example_sq)

    def _fused_forward(self, watch: Watch) -> Callable[[Tensor], Tensor]:
        module = watch.module

        def on_backward(x: Tensor, y: Tensor, example_sq: Tensor) -> None:
            watch.uses.append(self._measure(watch, x, y, example_sq))

        def forward(x: Tensor) -> Tensor:
            if x.ndim > 2 and torch.is_grad_enabled() and pays(x.shape[0], x.shape[1:-1].numel(), *module.weight.shape):
                return FusedLinear.apply(x, module.weight, module.bias, on_backward)
            return nn.Linear.forward(module, x)

        return forward

    def _on_forward(self, watch: Watch) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad or hasattr(output.grad_fn, "on_backward"):
                return  # no backward pass will come, or FusedLinear measures it
            # X waits for backward as a saved tensor, not in this closure: checkpointing and offloading keep working
            node = Saved.apply(self._anchor, inputs[0].detach()).grad_fn

            def on_gradient(y: Tensor) -> None:
                nonlocal node
                (x,), node = node.saved_tensors, None
                watch.uses.append(self._measure(watch, x, y))

            output.register_hook(on_gradient)

        return hook

    def _on_weight_gradient(self, watch: Watch) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            # C comes free: autograd has just formed G, and has not yet added it to what .grad may hold
            if len(watch.uses) == 1:
                watch.uses[0].C = norm(gradient).double().square()

        return hook

    @torch.no_grad()
    def _measure(self, watch: Watch, x: Tensor, y: Tensor, example_sq: Tensor | None = None) -> Use:
        x = x.detach().to(y.dtype)  # under autocast the product is formed in the dtype of the output
        examples = x.shape[0] if x.ndim > 1 else 1
        rows = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        x_sq, y_sq = row_sq(rows[0]), row_sq(rows[1])
        if self.by_example and x.ndim < 3:
            example_sq = x_sq * y_sq  # a row is an example
        elif self.by_example and example_sq is None:
            example_sq = noise.example_sq(x.flatten(1, -2), y.flatten(1, -2))
        return Use(
            p=x.shape[-1],
            q=y.shape[-1],
            x_sq=x_sq,
            y_sq=y_sq,
            examples=examples,
            example_sq=example_sq,
            pair=rows if watch.name in self.pairs else None,
            C=None if watch.alone else norm(wide(rows[0]).T @ wide(rows[1])).double().square(),
        )


class Saved(torch.autograd.Function):
    """An identity whose graph node holds a tensor as autograd holds its own: hooks on saved tensors apply to it."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return anchor.view_as(anchor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
