"""GaussNewton: the curvature that a loss has through its model's outputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from sketchvar.analysis.noise.curvature import Batches, Curvature
from sketchvar.analysis.noise.objective import Objective

LOSSES = (F.cross_entropy, F.mse_loss, F.binary_cross_entropy_with_logits)


class GaussNewton(Curvature):
    """JᵀΛJ: J the derivative of the model's outputs z by its weights, Λ that of the loss by z,
    twice.

    uᵀHu is, for softmax outputs, the mean over tokens of the variance of Ju under the model's own
    probabilities. Never negative; what of the Hessian is missing is the curvature of the outputs
    themselves. z is found where ``loss`` calls one of ``LOSSES``, which may be weighted, masked or
    one term of several. Raises ValueError for a loss made otherwise.

    All of one draw's noise meets the same batches at the same weights: their graph is made once,
    and held until others are asked for, at the memory of two training steps on each.

    Source: Schraudolph 2002, doi 10.1162/08997660260028683; Martens 2020,
    https://arxiv.org/abs/1412.1193.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective)
        self.known: tuple[Any, list[Linear]] | None = None  # where the graphs are of, and they

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"known": None}  # graphs stay in their process

    def form(self, u: Float[Tensor, " N"], batches: Batches, seed: int) -> float:
        total, vectors = 0.0, self.objective.split(u)
        for linear in self.linear(batches, seed):
            moves = linear.forward(vectors)
            for t, c in zip(moves, linear.bend(moves), strict=True):
                total += float((t.double() * c.double()).sum())
        return total / len(batches)

    def product(self, v: Float[Tensor, " N"], batches: Batches, seed: int) -> Float[Tensor, " N"]:
        total, vectors = torch.zeros_like(v), self.objective.split(v)
        for linear in self.linear(batches, seed):
            total += self.objective.joined(linear.back(linear.bend(linear.forward(vectors))))
        return total / len(batches)

    def linear(self, batches: Batches, seed: int) -> "list[Linear]":
        """The outputs on every batch, made linear in the weights where they are now."""
        weights = self.objective.parameters.values()
        here = (seed, [w._version for w in weights], self.objective.model.training, *batches)
        if self.known is None or not is_same(self.known[0], here):
            self.known = None  # the old graphs go before new ones come
            self.known = (
                here,
                [Linear.of(self.objective, b, seed + i) for i, b in enumerate(batches)],
            )
        return self.known[1]


class Linear(NamedTuple):
    """What a batch's outputs ``z`` do where the weights move a little.

    ``slopes``: of the loss by z, as functions of ``leaves`` that stand for z. ``pulled``: Jᵀ
    ``probes`` for each weight, linear in the probes, which has Ju as its own derivative: so that
    all is had by reverse mode, with one graph.
    """

    names: tuple[str, ...]
    weights: tuple[Tensor, ...]
    z: tuple[Tensor, ...]
    leaves: tuple[Tensor, ...]
    slopes: tuple[Tensor, ...]
    probes: tuple[Tensor, ...]
    pulled: tuple[Tensor, ...]

    @classmethod
    def of(cls, objective: Objective, batch: Any, seed: int) -> "Linear":
        """Raises ValueError for a loss that calls none of ``LOSSES``."""
        names, weights = zip(*objective.parameters.items(), strict=True)
        # other attention kernels have no second derivative
        with sdpa_kernel(SDPBackend.MATH):
            with Outputs() as caught:
                value = objective.forward(batch, seed)
            if not caught.found:
                raise ValueError(
                    "Gauss–Newton needs a loss made by cross_entropy, mse_loss or"
                    " binary_cross_entropy_with_logits of torch.nn.functional; use kicks"
                )
            z, leaves = zip(*caught.found, strict=True)
            slopes = torch.autograd.grad(value, leaves, create_graph=True)
            probes = tuple(torch.zeros_like(each, requires_grad=True) for each in z)
            pulled = torch.autograd.grad(
                z, weights, probes, create_graph=True, materialize_grads=True
            )
        return cls(names, weights, z, leaves, slopes, probes, pulled)

    def forward(self, vectors: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Ju of every output."""
        along = [vectors[name] for name in self.names]
        return derive(self.pulled, self.probes, along)

    def bend(self, moves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Λ of them."""
        return derive(self.slopes, self.leaves, moves)

    def back(self, curved: tuple[Tensor, ...]) -> dict[str, Tensor | None]:
        """Jᵀ of them, by weight."""
        return dict(zip(self.names, derive(self.z, self.weights, curved), strict=True))


def derive(of: Any, by: Any, along: Any) -> tuple[Tensor, ...]:
    """Σ ∂ofᵀ/∂by along, where anything depends on ``by``; the graph stays."""
    pairs = [(each, t) for each, t in zip(of, along, strict=True) if each.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(each) for each in by)
    of, along = zip(*pairs, strict=True)
    return torch.autograd.grad(of, by, along, retain_graph=True, materialize_grads=True)


def is_same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Whether seed, versions and mode are equal, and batches the same objects."""
    return a[:3] == b[:3] and len(a) == len(b) and all(x is y for x, y in zip(a[3:], b[3:]))  # noqa: B905


class Outputs(TorchFunctionMode):
    """Within, what one of ``LOSSES`` is called with is noted, and the loss goes on from a leaf in
    its place: so that it can be differentiated by its outputs alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func not in LOSSES:
            return func(*args, **kwargs)
        z, *rest = args if args else [kwargs.pop("input")]
        leaf = z.detach().requires_grad_()
        self.found.append((z, leaf))
        return func(leaf, *rest, **kwargs)
