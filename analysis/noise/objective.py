"""Objective: a model's loss as a function of its trainable weights, on a copy that nobody else
sees.
"""

import copy
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sketchvar.analysis.noise.spread import Loss
from sketchvar.estimators import Estimator, sketch_linears, unsketch
from sketchvar.estimators.layers.convert import Conversion, Patterns
from sketchvar.estimators.layers.opaque import seeds_from
from sketchvar.estimators.seeds import fold


class Objective:
    """``loss(model, batch)`` of a plain copy of ``model``, its gradients as flat vectors (N).

    ``parameters`` are the trainable ones by name, ``blocks`` their places in a vector. Every
    evaluation takes a seed for whatever is random in it (dropout), so that two at one seed differ
    by the weights only. ``scaler``, a GradScaler, keeps float16 gradients from vanishing.

    Raises ValueError for a model without trainable parameters, or with any narrower than float32,
    in which a small change of a weight is lost.
    """

    def __init__(self, model: nn.Module, loss: Loss, scaler: Any = None) -> None:
        self.model, self.loss, self.scaler = copy.deepcopy(model), loss, scaler
        self.sketched_before = unsketch(self.model)
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError("the model has no trainable parameters; nothing can be noisy")
        for name, p in self.parameters.items():
            if p.element_size() < 4:
                raise ValueError(
                    f"{name} is {p.dtype}, in which a small change is lost; keep the weights in"
                    " float32 and compute in less by torch.autocast"
                )
        ends = list(itertools.accumulate((p.numel() for p in self.parameters.values()), initial=0))
        self.blocks = {
            name: slice(*pair)
            for name, pair in zip(self.parameters, itertools.pairwise(ends), strict=True)
        }
        self.size = ends[-1]
        narrow = any(p.dtype != torch.float64 for p in self.parameters.values())
        self.dtype = torch.float32 if narrow else torch.float64

    def split(self, vector: Float[Tensor, " N"]) -> dict[str, Tensor]:
        """A vector as tensors of the parameters' shapes, by name."""
        return {
            name: vector[self.blocks[name]].view_as(p).to(p.dtype)
            for name, p in self.parameters.items()
        }

    def joined(self, parts: dict[str, Tensor | None]) -> Float[Tensor, " N"]:
        """One tensor per parameter as a vector; None is zero."""
        flat = []
        for name, p in self.parameters.items():
            part = parts[name]
            flat.append(
                (torch.zeros_like(p) if part is None else part.detach()).flatten().to(self.dtype)
            )
        return torch.cat(flat)

    def forward(self, batch: Any, seed: int) -> Tensor:
        """The loss, to be differentiated."""
        torch.manual_seed(seed)
        return self.loss(self.model, batch)

    @torch.no_grad()
    def value(self, batch: Any, seed: int) -> float:
        """The loss; may be infinite or NaN."""
        return float(self.forward(batch, seed))

    def gradient(self, batch: Any, seed: int) -> Float[Tensor, " N"]:
        """∇L, flat. Raises FloatingPointError where the loss or the gradient is not finite,
        ValueError where the loss does not depend on the model that it is given.
        """
        for p in self.parameters.values():
            p.grad = None
        value = self.forward(batch, seed)
        if not value.isfinite():
            raise FloatingPointError(f"the loss is {value.item()}; no cost can be measured there")
        scale = 1.0 if self.scaler is None else self.scaler.get_scale()
        (value * scale).backward()
        if all(p.grad is None for p in self.parameters.values()):
            raise ValueError(
                "the loss does not depend on the model that it is given; write"
                " loss(model, batch) with that model, not one from outside"
            )
        found = self.joined({name: p.grad for name, p in self.parameters.items()}) / scale
        for p in self.parameters.values():
            p.grad = None
        if not found.isfinite().all():
            raise FloatingPointError(
                "the gradient is not finite, though the loss is; no cost can be measured there"
            )
        return found

    @contextmanager
    def moved(self, by: Float[Tensor, " N"]) -> Iterator[None]:
        """A block in which the weights are w + ``by``; afterwards they are w, to the last bit."""
        before = {name: p.detach().clone() for name, p in self.parameters.items()}
        with torch.no_grad():
            for name, step in self.split(by).items():
                self.parameters[name].add_(step)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(before[name])

    @contextmanager
    def sketched(
        self,
        estimator: Estimator | Mapping[str, Estimator],
        seed: int,
        one_seed: bool = False,
        include: Patterns = None,
        exclude: Patterns = None,
    ) -> Iterator[Conversion]:
        """A block in which the linear layers take their weight gradient from ``estimator``.

        A seed per call, folded from ``seed`` and not from torch's generator, so that whatever else
        is random is as in the plain model; with ``one_seed`` the same for all layers.
        """
        done = sketch_linears(self.model, estimator, include, exclude)
        modes = {name: self.model.get_submodule(name).training for name in done.converted}
        seeds = itertools.repeat(seed) if one_seed else (fold(seed, i) for i in itertools.count())
        try:
            for name in done.converted:  # in eval mode a sketched layer runs plain
                self.model.get_submodule(name).train()
            with seeds_from(seeds):
                yield done
        finally:
            unsketch(self.model)
            for name, mode in modes.items():
                self.model.get_submodule(name).train(mode)

    def weights_of(self, layers: Any) -> dict[str, slice]:
        """Layer -> the place of its weight in a vector, for those that are trained."""
        place = {id(p): self.blocks[name] for name, p in self.parameters.items()}
        weights = {name: self.model.get_submodule(name)._parameters["weight"] for name in layers}
        return {name: place[id(w)] for name, w in weights.items() if id(w) in place}
