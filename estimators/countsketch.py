"""CountSketch: every row goes to one bucket with a random sign."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from estimators.dense import signs
from estimators.moments import Moments
from estimators.seeds import generator
from estimators.sketch import BlockSketch


class Buckets(NamedTuple):
    """Bucket j sums the rows ``order[offsets[j]:offsets[j + 1]]``, each times the sign at the same place."""

    order: Int[Tensor, " n"]
    offsets: Int[Tensor, " k"]
    signs: Float[Tensor, " n"]


@dataclass(frozen=True)
class CountSketch(BlockSketch[Buckets]):
    """Keeps k signed sums of rows: a random partition of the n rows into k buckets, sizes equal up to one.

    S has one entry ±1 per row, so E[SSᵀ] = I with a diagonal that is exactly 1.
    Variance: (Q + C − 2D) Σ_j b_j(b_j − 1) / (n(n − 1)) for bucket sizes b_j; 0 at rate 1. Bytes: k·p.
    Time: 2kpq and one read of X and of Y.
    Source: Charikar, Chen, Farach-Colton 2002, https://doi.org/10.1007/3-540-45465-9_59; the balanced partition, which
    removes the variance of the bucket sizes, is derived in this project's tests.
    """

    def draw(self, n: int, seed: int, device: torch.device) -> Buckets:
        g = generator(seed, device)
        order = torch.randperm(n, generator=g, device=device, dtype=torch.int32)
        k = self.k(n)
        offsets = torch.arange(k, device=device, dtype=torch.int32) * (n // max(k, 1))
        offsets += torch.arange(k, device=device, dtype=torch.int32).clamp(max=n % max(k, 1))
        return Buckets(order, offsets, signs((n,), g))

    def apply(self, s: Buckets, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        if x.shape[0] == 0:
            return x.clone()
        # one pass over X at the speed of a copy, where gather, reshape and sum take five
        return embedding_bag(s.order, x.contiguous(), s.offsets, mode="sum", per_sample_weights=s.signs.to(x.dtype))

    def blocks(self, s: Buckets, size: int) -> Iterator[Buckets]:
        ends = [*s.offsets[::size].tolist()[1:], s.order.shape[0]]
        start = 0
        for offsets, end in zip(s.offsets.split(size), ends, strict=True):
            yield Buckets(s.order[start:end], offsets - start, s.signs[start:end])
            start = end

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        k = max(self.k(m.n), 1)
        size, larger = divmod(m.n, k)  # `larger` buckets hold size + 1 rows
        pairs = larger * (size + 1) * size + (k - larger) * size * (size - 1)
        return (m.Q + m.C - 2 * m.D) * (pairs / max(m.n * (m.n - 1), 1))
