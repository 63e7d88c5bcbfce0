"""Sketches with few nonzeros: every row of X goes to some buckets, each time with a random sign."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.kernels import (
    Buckets,
    bucket_sums,
    draw_partition,
    group_rows,
    split_buckets,
)
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.seeds import generator
from sketchvar.estimators.sketch import RowSketch


@dataclass(frozen=True)
class CountSketch(RowSketch[Buckets]):
    """Keeps k = rate · n signed sums of rows: a random partition of the n rows into k buckets,
    sizes equal up to one.

    With ``balanced=False`` every row picks its bucket by itself, as in the source.
    S has one entry ±1 per row, so E[SSᵀ] = I with a diagonal that is exactly 1.
    Variance: (Q + C − 2D) Σ_j b_j(b_j − 1) / (n(n − 1)) for bucket sizes b_j, 0 at rate 1;
    unbalanced (Q + C − 2D) / k.
    Bytes: k·p. Time: 2kpq and one read of X and of Y.
    Use: the first among sums of rows: the variance of SRHT in the time of a copy; in Centered
    where rows share a mean.
    Source: Charikar, Chen, Farach-Colton 2002, https://doi.org/10.1007/3-540-45465-9_59; the
    balanced partition, which removes the variance of the bucket sizes: BASIS 2026,
    https://arxiv.org/abs/2604.16324, whose norm factors bias it; its variance is derived here.

    >>> CountSketch(rate=0.25).compress(torch.ones(8, 3), seed=0).tensors[0].shape
    torch.Size([2, 3])
    """

    balanced: bool = True
    cut = staticmethod(split_buckets)

    def draw(self, n: int, seed: int, device: torch.device) -> Buckets:
        k = self.k(n)
        if self.balanced:
            return draw_partition(n, k, seed, device)
        g = generator(seed, device)
        return group_rows(g.integers(k, n), k, g.signs(n))

    def apply(self, s: Buckets, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        return bucket_sums(s, x)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        k = max(self.k(m.n), 1)
        if not self.balanced:
            return (m.Q + m.C - 2 * m.D).clamp(min=0) / k
        size, larger = divmod(m.n, k)  # `larger` buckets hold size + 1 rows
        pairs = larger * (size + 1) * size + (k - larger) * size * (size - 1)
        return (m.Q + m.C - 2 * m.D).clamp(min=0) * (pairs / max(m.n * (m.n - 1), 1))


@dataclass(frozen=True)
class SparseSign(RowSketch[Buckets]):
    """Keeps k = rate · n sums to each of which few rows go: every row goes to s = min(``nonzeros``,
    k) distinct ones, as ±x/√s.

    S has exactly s entries ±1/√s per row, so E[SSᵀ] = I with a diagonal that is exactly 1. More
    nonzeros make bad draws rarer but not the variance smaller. s = 1 is
    ``CountSketch(balanced=False)``; s = k is ``Rademacher``.
    Variance: (Q + C − 2D) / k for any s. Bytes: k·p. Time: 2kpq and s reads of X and of Y.
    Use: to see that more nonzeros than one take more time and buy no variance.
    Raises: ValueError unless ``nonzeros`` is a whole number from 1 on.
    Source: Nelson and Nguyễn 2013 (OSNAP), https://arxiv.org/abs/1211.1002.
    """

    nonzeros: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            isinstance(self.nonzeros, bool)
            or not isinstance(self.nonzeros, int)
            or self.nonzeros < 1
        ):
            raise ValueError(
                "SparseSign needs a whole number of nonzeros >= 1 per row, got"
                f" nonzeros={self.nonzeros}"
            )

    def draw(self, n: int, seed: int, device: torch.device) -> Buckets:
        g, k = generator(seed, device), self.k(n)
        s = min(self.nonzeros, k)
        drawn = group_rows(g.subsets(k, s, n).flatten(), k, g.signs(n * s))
        return drawn._replace(order=drawn.order // max(s, 1))

    def apply(self, s: Buckets, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        each = s.order.shape[0] // max(x.shape[0], 1)
        return bucket_sums(s, x) * max(each, 1) ** -0.5

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        return (m.Q + m.C - 2 * m.D).clamp(min=0) / max(self.k(m.n), 1)
