"""The only door to randomness: seeds are folded from integers and names, generators are made from
seeds, and every random choice of an estimator is a method of its generator.
"""

import hashlib
from collections.abc import Callable
from contextvars import ContextVar
from operator import index

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def fold(seed: int, *data: int | str) -> int:
    """A new seed in [0, 2⁶³) from a seed and any integers or names; the same arguments give the
    same seed.

    Folding, unlike adding, keeps (seed 1, step 2) and (seed 2, step 1) apart.
    """
    words = (f"str:{d}" if isinstance(d, str) else f"int:{index(d)}" for d in data)
    text = "\x1f".join([str(int(seed)), *words])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class Generator(torch.Generator):
    """torch's generator with the random choices that estimators make, on the generator's device.

    A choice made here can be enumerated: ``estimators.testing`` puts every outcome in its place.
    """

    def normals(self, *shape: int) -> Float[Tensor, "..."]:
        """Independent N(0, 1), float32."""
        return torch.randn(shape, generator=self, device=self.device, dtype=torch.float32)

    def signs(self, *shape: int) -> Float[Tensor, "..."]:
        """Independent ±1 with equal probability, float32."""
        zeros = torch.empty(shape, device=self.device, dtype=torch.float32)
        return zeros.bernoulli_(0.5, generator=self).mul_(2).sub_(1)

    def uniforms(self, *shape: int) -> Float[Tensor, "..."]:
        """Independent uniform numbers in (0, 1], float64."""
        u = torch.rand(shape, generator=self, device=self.device, dtype=torch.float64)
        return u.neg_().add_(1)

    def integers(self, high: int, count: int) -> Int[Tensor, " count"]:
        """Independent uniform numbers below ``high``."""
        return torch.randint(max(high, 1), (count,), generator=self, device=self.device)

    def permutation(self, n: int) -> Int[Tensor, " n"]:
        """The numbers below n in a random order, int32."""
        return torch.randperm(n, generator=self, device=self.device, dtype=torch.int32)

    def sample(self, n: int, k: int) -> Int[Tensor, " k"]:
        """k distinct numbers below n; their order means nothing."""
        return torch.randperm(n, generator=self, device=self.device)[:k]

    def subsets(self, n: int, k: int, count: int) -> Int[Tensor, "count k"]:
        """``count`` independent sets of k distinct numbers below n, in no particular order.

        Floyd's sampling, for all sets at once: Bentley and Floyd 1987,
        https://doi.org/10.1145/30401.315746.
        """
        chosen = torch.empty(count, 0, dtype=torch.int64, device=self.device)
        for last in range(n - k, n):
            pick = torch.randint(last + 1, (count, 1), generator=self, device=self.device)
            pick = pick.where((chosen != pick).all(1, keepdim=True), last)
            chosen = torch.cat([chosen, pick], 1)
        return chosen

    def choices(self, pi: Float[Tensor, " n"], k: int) -> Int[Tensor, " k"]:
        """k row numbers drawn independently with probabilities π, float64, by inverting their
        cumulative sum.

        Unlike torch.multinomial it takes any n, never raises on NaN (which then shows in the
        estimate) and never synchronises the device; a row with πᵢ = 0 is never chosen.
        """
        edges = pi.cumsum(0)
        u = torch.rand(k, generator=self, device=self.device, dtype=torch.float64)
        total = edges[-1:]
        u = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
        return torch.searchsorted(edges, u, right=True).clamp_(max=max(pi.shape[0] - 1, 0))

    def choose_columns(self, weights: Float[Tensor, "k m"]) -> Int[Tensor, " k"]:
        """A column for each row, with probability in proportion to the row's weights, float64.

        The first column where all are zero; any where they are not finite.
        """
        u = torch.rand(weights.shape[0], 1, generator=self, device=self.device, dtype=torch.float64)
        edges = weights.cumsum(1)
        column = (edges <= u * edges[:, -1:]).sum(1)
        return torch.where(column < weights.shape[1], column, 0)

    def coins(self, pi: Float[Tensor, "*shape"], dtype: torch.dtype) -> Bool[Tensor, "*shape"]:
        """Independent coins that are True with probabilities π (and where π is NaN, so that it
        shows), by uniform numbers of ``dtype``.
        """
        return ~(torch.rand(pi.shape, generator=self, device=self.device, dtype=dtype) >= pi)

    def flips(self, pi: Float[Tensor, "*shape"], numbers: Callable[[int], Tensor]) -> Tensor:
        """``coins``, by numbers that a counter makes of the seed."""
        return ~(numbers(self.initial_seed()).view_as(pi) >= pi)


MAKE: ContextVar[Callable[[torch.device | str], Generator]] = ContextVar("MAKE", default=Generator)


def generator(seed: int, device: torch.device | str = "cpu") -> Generator:
    """A fresh generator on ``device``, started from ``seed``. Numbers differ between device types,
    not between runs.
    """
    made = MAKE.get()(device)
    made.manual_seed(index(seed))  # NumPy's integers are seeds too
    return made
