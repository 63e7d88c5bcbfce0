"""Standard errors by the jackknife: from the examples of each batch, and from batch to batch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Each = Float[Tensor, "*some 1+S"]  # what a batch says, then what it says without each example


class Estimate(NamedTuple):
    """A function of means over batches, with its standard error; NaN where that is not known."""

    value: Tensor
    stderr: Tensor


def estimate(function: Callable[..., Tensor], *means: Sequence[Each]) -> Estimate:
    """``function`` of the means over batches of one or more numbers, each given batch by batch: so
    a ratio is one of means.

    The error is the larger of two. One leaves out an example at a time, in every batch; where tails
    are heavy it is a floor, and NaN where a batch does not say what it would be without one. The
    other leaves out a batch at a time, and is itself known to 1/√(2(M − 1)) of M batches.
    Source: Efron and Stein 1981, https://doi.org/10.1214/aos/1176345462.
    """
    count = len(means[0])
    batches = [torch.stack([t[..., 0] for t in each]) for each in means]
    whole = [each.mean(0) for each in batches]
    value = function(*whole)
    if count == 1 and all(each[0].shape[-1] < 3 for each in means):  # nothing can be left out
        return Estimate(value, torch.full_like(value, torch.nan))
    within = torch.zeros_like(value)
    for parts in zip(*means, strict=True):
        changed = [
            mean[..., None] + (part[..., 1:] - part[..., :1]) / count
            for mean, part in zip(whole, parts, strict=True)
        ]
        within = within + leave_one_out(function(*changed), -1).square()
    others = [
        (count * mean - each) / max(count - 1, 1) for mean, each in zip(whole, batches, strict=True)
    ]
    between = leave_one_out(function(*others), 0)
    return Estimate(value, torch.fmax(within.sqrt(), between))


def leave_one_out(values: Tensor, dim: int) -> Tensor:
    """√((n − 1)/n Σ (θᵢ − θ̄)²) of n values θᵢ, each without one of n independent parts; NaN for
    fewer than two.
    """
    n = values.shape[dim]
    if n < 2:
        return torch.full_like(values.sum(dim), torch.nan)
    return values.std(dim) * ((n - 1) / n**0.5)
