"""Buckets: rows sent to few places, each with a sign; how they are drawn, cut and summed."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from sketchvar.estimators.seeds import Generator


class Buckets(NamedTuple):
    """Bucket j sums the rows ``order[offsets[j]:offsets[j + 1]]``, each times the sign at the same
    place.
    """

    order: Int[Tensor, " nonzeros"]
    offsets: Int[Tensor, " k"]
    signs: Float[Tensor, " nonzeros"]


def draw_partition(n: int, k: int, g: Generator) -> Buckets:
    """n rows in a random order, cut into k buckets whose sizes are equal up to one."""
    order, buckets = g.permutation(n), torch.arange(k, device=g.device, dtype=torch.int32)
    offsets = buckets * (n // max(k, 1)) + buckets.clamp(max=n % max(k, 1))
    return Buckets(order, offsets, g.signs(n))


def group_rows(
    bucket: Int[Tensor, " nonzeros"], k: int, signs: Float[Tensor, " nonzeros"]
) -> Buckets:
    """k buckets, from the bucket to which each entry goes. No device synchronisation."""
    sorted_buckets, order = bucket.sort(stable=True)
    offsets = torch.searchsorted(sorted_buckets, torch.arange(k, device=bucket.device))
    return Buckets(order, offsets, signs)


def split_buckets(s: Buckets, size: int) -> Iterator[Buckets]:
    """``s`` in pieces of ``size`` buckets, in order."""
    ends = [*s.offsets[::size].tolist()[1:], s.order.shape[0]]
    start = 0
    for offsets, end in zip(s.offsets.split(size), ends, strict=True):
        yield Buckets(s.order[start:end], offsets - start, s.signs[start:end])
        start = end


def bucket_sums(s: Buckets, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
    """The sum of each bucket, by segments: one pass over x at the speed of a copy, where gather,
    reshape and sum take five.
    """
    if x.numel() == 0:
        return x.new_zeros(s.offsets.shape[0], x.shape[1])
    weights = s.signs.to(x.dtype)
    return embedding_bag(s.order, x.contiguous(), s.offsets, mode="sum", per_sample_weights=weights)
