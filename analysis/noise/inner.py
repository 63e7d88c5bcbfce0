"""Inner products of vectors as long as a model, in float64."""

import torch
from jaxtyping import Float
from torch import Tensor

PIECE = 2**16  # numbers at a time: two pieces in float64 fit into a core's cache


def inner(a: Float[Tensor, " N"], b: Float[Tensor, " N"]) -> float:
    """aᵀb, summed in float64, a piece at a time: copies of whole vectors take longer than the sum
    does.
    """
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for p, q in zip(a.split(PIECE), b.split(PIECE), strict=True):
        total += p.double() @ q.double()
    return float(total)
