"""Minibatch variance of the gradient: by row and by example from one minibatch, and by redrawing
many.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators import Moments
from sketchvar.estimators.norms import norm, wide

# What is left of the difference of two sums of float32 products, as a part of either, where there
# should be nothing: rounding leaves up to a tenth of it.
RESOLUTION = 64 * torch.finfo(torch.float32).eps
LARGE = 2**18  # entries: a float32 sum over more of them loses digits, 2e-5 of it over a million


def by_row(
    m: Moments, rows: int | None = None, resolution: float = RESOLUTION
) -> Float[Tensor, ""]:
    """Variance of G over the draw of its n rows, were they independent: (nD − C) / (n − 1). NaN for
    a single row; 0 where the difference is below ``resolution`` of nD, as it is for equal rows.

    ``rows`` is n where some rows are padding, which nobody draws; all of them unless given.
    Source: Bershatsky et al. 2022, https://arxiv.org/abs/2201.13195, eq. for D²_SGD.
    """
    return over_draws(m.D, m.C, m.n if rows is None else rows, resolution)


def by_example(
    example_sq: Float[Tensor, " S"],
    C: Float[Tensor, ""],
    resolution: float = RESOLUTION,
    weights: Float[Tensor, " S"] | None = None,
    inner: Float[Tensor, " S"] | None = None,
) -> Float[Tensor, ""]:
    """Unbiased variance of G over the draw of its S examples: S/(S − 1) Σ‖g_s‖² − C/(S − 1). NaN
    for one example; 0 where the difference is below ``resolution`` of S Σ‖g_s‖², as it is for
    examples whose gradients are equal to that many digits.

    Examples have to be independent. They are not under BatchNorm in training mode, nor where the
    loss compares examples with each other (contrastive losses, correlations over the batch), nor
    where examples repeat in a batch; the truth is then to be had by ``noise.redraw``.
    ``example_sq`` holds ‖g_s‖² with g_s = X_sᵀY_s the example's part of G, in the scale of G: where
    the loss is a mean, each g_s carries its 1/S, and the result is the variance of the mean
    gradient.

    Where the loss is a mean over all tokens and examples have different numbers of them, G is a
    ratio, in which example s has the ``weights`` w_s = T_s / Σ T: then D² = Σ_s ‖g_s − w_s G‖² /
    (1 − w_s), to first order, for which the ``inner`` products ⟨g_s, G⟩ are needed. Equal weights
    give the plain form. Source: derived in this project, by the delta method.
    """
    if weights is None:
        return over_draws(example_sq.sum(), C, len(example_sq), resolution)
    if inner is None:
        raise ValueError(
            "weights of examples need the inner products <g_s, G> too, got None; give inner="
        )
    return weighted_parts(example_sq, inner, weights, C).sum()


def weighted_parts(
    example_sq: Float[Tensor, "*L S"],
    inner: Float[Tensor, "*L S"],
    weights: Float[Tensor, "*L S"],
    C: Float[Tensor, "*L 1"],
) -> Float[Tensor, "*L S"]:
    """‖g_s − w_s G‖² / (1 − w_s) of each example."""
    apart = example_sq - 2 * weights * inner + weights.square() * C
    return apart.clamp(min=0) / (1 - weights)


def over_draws(
    squares: Tensor, C: Tensor, count: int | Tensor, resolution: float | Tensor = RESOLUTION
) -> Tensor:
    """The variance of G, the sum of ``count`` parts whose ``squares`` are summed, over draws of
    them: (count · squares − C) / (count − 1). NaN for less than two; 0 where the difference, which
    is never negative, is below ``resolution`` of the first term.
    """
    whole = count * squares
    difference = whole - C
    apart = torch.where(difference <= resolution * whole, 0.0, difference)
    fit = torch.as_tensor(count, device=C.device) > 1
    return torch.where(fit, apart / (count - 1), torch.nan)


def total_sq(t: Tensor) -> Float[Tensor, "*batch"]:
    """‖T‖² of a matrix, or of each of several, in float64, accumulated in float32 or wider."""
    return total_norm(t).double().square()


def total_norm(t: Tensor) -> Float[Tensor, "*batch"]:
    """‖T‖ of a matrix, or of each of several: in float32 or wider, in float64 of a large one."""
    if t.shape[-1] * t.shape[-2] <= LARGE:
        return norm(t, dim=(-2, -1))
    along = -1 if t.stride(-1) == 1 else -2
    return torch.linalg.vector_norm(norm(t, dim=along), dim=-1, dtype=torch.float64)


def example_sq(
    x: Float[Tensor, "S T p"],
    y: Float[Tensor, "S T q"],
    budget: int | None = None,
    weights: Float[Tensor, "p q"] | None = None,
) -> Float[Tensor, " S"]:
    """‖X_sᵀY_s‖²_F for each of S examples of T rows, in float64, in the cheaper of two ways; with
    ``weights`` W ≥ 0 Σ W ∘ (X_sᵀY_s)², by the product, as no other way has it.

    Short examples: ⟨X_sX_sᵀ, Y_sY_sᵀ⟩, at T²(p + q) operations; long ones: the product itself, at
    Tpq. Temporary memory stays below ``budget`` numbers (a quarter of X and Y, or 2¹⁸, unless
    given), by going through the examples in chunks.
    """
    t, p, q = *x.shape[1:], y.shape[-1]
    gram = weights is None and t * (p + q) < p * q
    root = None if weights is None else weights.sqrt()
    each = 2 * t * t if gram else p * q
    chunk = max(1, (budget or max(2**18, (x.numel() + y.numel()) // 4)) // each)
    parts = [x.new_zeros(0, dtype=torch.float64)]
    for a, b in zip(wide(x).split(chunk), wide(y).split(chunk), strict=True):
        if gram:
            parts.append((a @ a.mT).mul_(b @ b.mT).sum((1, 2), dtype=torch.float64))
        else:
            product = a.mT @ b
            parts.append(total_sq(product if root is None else product * root))
    return torch.cat(parts)
