"""GaussNewton: the curvature that a loss has through its model's outputs, by forward mode."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from sketchvar.analysis.noise.curvature import Batches, Curvature

LOSSES = (F.cross_entropy, F.mse_loss, F.binary_cross_entropy_with_logits)


class GaussNewton(Curvature):
    """JᵀΛJ: J the derivative of the model's outputs z by its weights, Λ that of the loss by z,
    twice.

    uᵀHu is one forward-mode pass: for softmax outputs, the mean over tokens of the variance of Ju
    under the model's own probabilities. Never negative; what of the Hessian is missing is the
    curvature of the outputs themselves. z is found where ``loss`` calls one of ``LOSSES``, which
    may be weighted, masked or one term of several. Raises ValueError for a loss made otherwise.

    Source: Schraudolph 2002, doi 10.1162/08997660260028683; Martens 2020,
    https://arxiv.org/abs/1412.1193.
    """

    def form(self, u: Float[Tensor, " N"], batches: Batches, seed: int) -> float:
        total = 0.0
        for i, batch in enumerate(batches):
            for _, t, c in self.outputs(batch, u, seed + i, reverse=False):
                total += float((t.double() * c.double()).sum())
        return total / len(batches)

    def product(self, v: Float[Tensor, " N"], batches: Batches, seed: int) -> Float[Tensor, " N"]:
        names, weights = zip(*self.objective.parameters.items(), strict=True)
        total = torch.zeros_like(v)
        for i, batch in enumerate(batches):
            z, _, c = zip(*self.outputs(batch, v, seed + i), strict=True)
            parts = torch.autograd.grad(z, weights, c, materialize_grads=True)
            total += self.objective.joined(dict(zip(names, parts, strict=True)))
        return total / len(batches)

    def outputs(
        self, batch: Any, v: Tensor, seed: int, reverse: bool = True
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of every output z that the loss reads: z itself, to be differentiated if ``reverse``, Jv
        and ΛJv.
        """
        objective, vectors = self.objective, self.objective.split(v)
        torch.manual_seed(seed)
        # other attention kernels have no forward mode
        with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), Outputs() as caught:
            duals = {
                f"model.{name}": forward_ad.make_dual(p if reverse else p.detach(), vectors[name])
                for name, p in objective.parameters.items()
            }
            value = functional_call(Whole(objective.model), duals, (objective.loss, batch))
            if not caught.found:
                raise ValueError(
                    "Gauss–Newton needs a loss made by cross_entropy, mse_loss or"
                    " binary_cross_entropy_with_logits of torch.nn.functional; use kicks"
                )
            outputs, leaves = zip(*caught.found, strict=True)
            pairs = [forward_ad.unpack_dual(z) for z in outputs]
            tangents = [torch.zeros_like(z) if t is None else t.detach() for z, t in pairs]
        slopes = torch.autograd.grad(value, leaves, create_graph=True)
        along = [(s * t).sum() for s, t in zip(slopes, tangents, strict=True)]
        curved = torch.autograd.grad(torch.stack(along).sum(), leaves, materialize_grads=True)
        return list(zip([z for z, _ in pairs], tangents, curved, strict=True))


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
        leaf = forward_ad.unpack_dual(z).primal.detach().requires_grad_()
        self.found.append((z, leaf))
        return func(leaf, *rest, **kwargs)


class Whole(nn.Module):
    """Model and loss as one module, whose parameters ``functional_call`` can replace."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[..., Tensor], batch: Any) -> Tensor:
        return loss(self.model, batch)
