"""Sums and norms that neither overflow nor lose digits in narrow dtypes."""

import torch
from jaxtyping import Float
from torch import Tensor


def total_sq(t: Tensor) -> Float[Tensor, ""]:
    """Sum of the squares of all entries, in float64."""
    return torch.linalg.vector_norm(t, dtype=torch.float64).square()


def column_mean(t: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Mean row in float32 or wider; zero for no rows."""
    return wide(t).sum(0) / max(t.shape[0], 1)


def center(t: Float[Tensor, "n d"], mean: Float[Tensor, " d"]) -> Float[Tensor, "n d"]:
    """The rows less their ``mean``, subtracted in its precision."""
    return (wide(t) - mean).to(t.dtype)


def wide(t: Tensor) -> Tensor:
    """``t`` in float32 if it is narrower: squares overflow in float16 and lose digits in
    bfloat16.
    """
    return t.float() if t.element_size() < 4 else t


def row_sq(t: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Squared norms of the rows in float64, accumulated in float32 or wider."""
    return norm(t, dim=-1).double().square()


def norm(t: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Euclidean norm over ``dim`` (or of all entries), accumulated in float32 or wider without a
    wide copy.
    """
    return torch.linalg.vector_norm(
        t, dim=dim, dtype=torch.float32 if t.element_size() < 4 else t.dtype
    )
