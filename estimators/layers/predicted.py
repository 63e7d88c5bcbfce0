"""Predicted scores: a layer that runs ScoredRows learns, position by position, how large the rows
of Y are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

import torch
from torch import Tensor

from sketchvar.estimators.combine import Then
from sketchvar.estimators.estimator import Estimator
from sketchvar.estimators.norms import row_sq
from sketchvar.estimators.row_bits import RowBits
from sketchvar.estimators.sampling import ScoredRows

MEMORY = 0.9  # of the running mean: ten steps or so
MASK: ContextVar[Tensor | None] = ContextVar("rows that count", default=None)


@contextmanager
def counting(mask: Tensor) -> Iterator[None]:
    """Within, layers that run ``ScoredRows`` give no score to rows where ``mask`` (batch × length)
    is 0: padding.

    A row without a score still has the floor's probability, so the estimate stays unbiased even
    where the mask is wrong. A mask says nothing to layers whose input has another batch × length.
    Keep backward within, too, where activations are checkpointed: that computes the forward pass
    again. Raises ValueError for a mask of other than two dimensions.
    """
    if mask.ndim != 2:
        raise ValueError(f"counting needs a mask of batch × length, got shape {tuple(mask.shape)}")
    token = MASK.set(mask)
    try:
        yield
    finally:
        MASK.reset(token)


def scored(estimator: Estimator) -> ScoredRows | RowBits | None:
    """The ``ScoredRows`` that an estimator is, or begins with, or the ``RowBits`` that has
    scores.
    """
    if isinstance(estimator, Then):
        return scored(estimator.first)
    if isinstance(estimator, RowBits):
        return None if estimator.scores is None else estimator
    return estimator if isinstance(estimator, ScoredRows) else None


def with_scores(estimator: Estimator, scores: Tensor) -> Estimator:
    """The same estimator with these scores, one per row."""
    if isinstance(estimator, Then):
        return replace(estimator, first=with_scores(estimator.first, scores))  # type: ignore[arg-type]
    return replace(estimator, scores=scores)  # type: ignore[type-var]


def row_scores(position_sq: Tensor, n: int, length: int) -> Tensor:
    """One score √(mean ‖y‖²) for each of n rows, ``length`` positions over and over, from a running
    mean per position.

    A position that was never met has the mean of those that were.
    """
    known = position_sq[:length]
    spare = position_sq.mean().expand(length - known.shape[0])
    return torch.cat([known, spare]).sqrt().repeat(n // max(length, 1)) * counted(n, length, known)


def updated(position_sq: Tensor, learned: bool, y: Tensor, length: int) -> Tensor:
    """The running mean after a backward pass that brought Y (n × q), ``length`` positions over and
    over.

    Rows that a mask excludes do not count, nor does a pass with values that are not finite (an
    overflow that a GradScaler is about to skip). The first pass takes the place of the starting
    values.
    """
    by_position = row_sq(y).float().reshape(-1, length)
    counts = counted(y.shape[0], length, by_position).reshape(-1, length)
    mean = (by_position * counts).sum(0) / counts.sum(0).clamp(min=1)
    old = position_sq
    if length > old.shape[0]:
        old = torch.cat([old, mean[old.shape[0] :]])
    new = old.clone()
    new[:length] = MEMORY * old[:length] + (1 - MEMORY) * mean if learned else mean
    return torch.where(torch.isfinite(mean).all(), new, old)


def counted(n: int, length: int, like: Tensor) -> Tensor:
    """1 for each of n rows, 0 where the mask of now excludes it."""
    mask = MASK.get()
    if mask is None or mask.numel() != n or mask.shape[1] != length:
        return like.new_ones(n)
    return (mask.flatten() != 0).to(like)
