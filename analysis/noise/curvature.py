"""The curvature of a loss along the noise of a step: by kicks, or by products with the Hessian."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sketchvar.analysis.noise.inner import inner
from sketchvar.analysis.noise.objective import Objective

Batches = Sequence[Any]
LEAST, AIM, MOST = 4e-3, 1e-2, 4e-2  # by how much of itself a kick moves the loss
TRIES = 6


class Curvature(ABC):
    """H, the second derivative of an objective's mean loss over some batches, at its weights.

    What is random in a loss (dropout) is the same at every evaluation, a function of ``seed``.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    @abstractmethod
    def form(self, u: Float[Tensor, " N"], batches: Batches, seed: int) -> float:
        """uᵀHu; negative where the loss curves down along u."""

    @abstractmethod
    def product(self, v: Float[Tensor, " N"], batches: Batches, seed: int) -> Float[Tensor, " N"]:
        """Hv."""


class Kicks(Curvature):
    """Symmetric differences: two forward passes, for any model and loss, without a derivative.

        uᵀHu = [L(w + cu) − 2 L(w) + L(w − cu)] / c²        Hv = [∇L(w + cv) − ∇L(w − cv)] / 2c

    c is so large that the loss moves by about a per cent at the ends, since what the step itself
    does to it can be below float32's resolution; the error is of order c². Where the loss is not
    finite the kick is halved, with a warning.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective)
        total = sum(
            float(p.detach().double().square().sum()) for p in objective.parameters.values()
        )
        self.reach = 1e-2 * (total**0.5 or 1.0)  # length of the next kick

    def form(self, u: Float[Tensor, " N"], batches: Batches, seed: int) -> float:
        norm = float(u.norm())
        if norm == 0:
            return 0.0
        still, ends, c = self.mean_loss(batches, seed), [0.0], 0.0
        for _ in range(TRIES):
            c = self.reach / norm
            ends = [each - still for each in self.losses_at(c * u, batches, seed)]
            share = max(map(abs, ends)) / max(abs(still), 1e-30)
            if LEAST <= share <= MOST:
                break
            if math.isfinite(share):
                self.reach *= min(max(AIM / max(share, 1e-12), 0.1), 4)
            else:
                self.halve(sum(ends) / 2)
        return sum(ends) / c**2

    def product(self, v: Float[Tensor, " N"], batches: Batches, seed: int) -> Float[Tensor, " N"]:
        norm = float(v.norm())
        if norm == 0:
            return torch.zeros_like(v)
        c = 0.3 * self.reach / norm  # short of it: v may be far steeper than a step
        ends = []
        for end in (c * v, -c * v):
            with self.objective.moved(end):
                ends.append(self.mean_gradient(batches, seed))
        return (ends[0] - ends[1]) / (2 * c)

    def halve(self, loss: float) -> None:
        warnings.warn(f"the loss is {loss} after a kick; half of it is taken", stacklevel=3)
        self.reach /= 2

    def losses_at(self, kick: Tensor, batches: Batches, seed: int) -> list[float]:
        found = []
        for end in (kick, -kick):
            with self.objective.moved(end):
                found.append(self.mean_loss(batches, seed))
        return found

    def mean_loss(self, batches: Batches, seed: int) -> float:
        return sum(self.objective.value(b, seed + i) for i, b in enumerate(batches)) / len(batches)

    def mean_gradient(self, batches: Batches, seed: int) -> Tensor:
        return torch.stack(
            [self.objective.gradient(b, seed + i) for i, b in enumerate(batches)]
        ).mean(0)


class Hessian(Curvature):
    """Exact products with H, by differentiating ⟨∇L, v⟩: for models with second derivatives.

    Source: Pearlmutter 1994, doi 10.1162/neco.1994.6.1.147.
    """

    def form(self, u: Float[Tensor, " N"], batches: Batches, seed: int) -> float:
        return inner(u, self.product(u, batches, seed))

    def product(self, v: Float[Tensor, " N"], batches: Batches, seed: int) -> Float[Tensor, " N"]:
        names, weights = zip(*self.objective.parameters.items(), strict=True)
        vectors = list(self.objective.split(v).values())
        total = torch.zeros_like(v)
        for i, batch in enumerate(batches):
            with sdpa_kernel(SDPBackend.MATH):  # other kernels have no second derivative
                loss = self.objective.forward(batch, seed + i)
                gradients = torch.autograd.grad(
                    loss, weights, create_graph=True, materialize_grads=True
                )
                along = [(g * v).sum() for g, v in zip(gradients, vectors, strict=True)]
                parts = torch.autograd.grad(
                    torch.stack(along).sum(), weights, materialize_grads=True
                )
            total += self.objective.joined(dict(zip(names, parts, strict=True)))
        return total / len(batches)
