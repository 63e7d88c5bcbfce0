"""Minibatch variance of the gradient: by row and by example from one minibatch, and by redrawing
many.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators import Moments
from sketchvar.estimators.moments import norm, wide


def by_row(m: Moments, rows: int | None = None) -> Float[Tensor, ""]:
    """Variance of G over the draw of its n rows, were they independent: (nD − C) / (n − 1). NaN for
    a single row.

    ``rows`` is n where some rows are padding, which nobody draws; all of them unless given.
    Source: Bershatsky et al. 2022, https://arxiv.org/abs/2201.13195, eq. for D²_SGD.
    """
    n = m.n if rows is None else rows
    return (n * m.D - m.C) / (n - 1) if n > 1 else torch.full_like(m.D, torch.nan)


def by_example(example_sq: Float[Tensor, " S"], C: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Unbiased variance of G over the draw of its S examples: S/(S − 1) Σ‖g_s‖² − C/(S − 1). NaN
    for one example.

    ``example_sq`` holds ‖g_s‖² with g_s = X_sᵀY_s the example's part of G, in the scale of G: where
    the loss is a mean, each g_s carries its 1/S, and the result is the variance of the mean
    gradient.
    """
    s = example_sq.shape[0]
    return (s * example_sq.sum() - C) / (s - 1) if s > 1 else torch.full_like(C, torch.nan)


def example_sq(
    x: Float[Tensor, "S T p"], y: Float[Tensor, "S T q"], budget: int | None = None
) -> Float[Tensor, " S"]:
    """‖X_sᵀY_s‖²_F for each of S examples of T rows, in float64, in the cheaper of two ways.

    Short examples: ⟨X_sX_sᵀ, Y_sY_sᵀ⟩, at T²(p + q) operations; long ones: the product itself, at
    Tpq. Temporary memory stays below ``budget`` numbers (a quarter of X and Y, or 2¹⁸, unless
    given), by going through the examples in chunks.
    """
    t, p, q = *x.shape[1:], y.shape[-1]
    gram = t * (p + q) < p * q
    each = 2 * t * t if gram else p * q
    chunk = max(1, (budget or max(2**18, (x.numel() + y.numel()) // 4)) // each)
    parts = [x.new_zeros(0, dtype=torch.float64)]
    for a, b in zip(wide(x).split(chunk), wide(y).split(chunk), strict=True):
        if gram:
            parts.append((a @ a.mT).mul_(b @ b.mT).sum((1, 2), dtype=torch.float64))
        else:
            parts.append(norm(a.mT @ b, dim=(1, 2)).double().square())
    return torch.cat(parts)
