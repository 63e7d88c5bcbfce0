"""Coarse parts of X, cheap to keep and the same every time: what ``Residual`` takes away first."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.estimator import SEED_BYTES, check_rate, kept_count
from sketchvar.estimators.kernels.rounding import round_and_pack, unpack_and_scale
from sketchvar.estimators.norms import norm, row_sq, wide
from sketchvar.estimators.quantize import BITS, StochasticRounding
from sketchvar.estimators.seeds import Generator

PASSES = 2  # of subspace iteration


@dataclass(frozen=True)
class Coarse(ABC):
    """A part X̃ of X (n × p) that keeps about ``rate`` of its numbers.

    Raises ValueError unless 0 < rate <= 1.
    """

    rate: float
    tensors: ClassVar[int] = 2  # that are kept

    def __post_init__(self) -> None:
        check_rate(self, self.rate)

    @abstractmethod
    def keep(self, x: Float[Tensor, "n p"]) -> tuple[Tensor, ...]:
        """What is kept of X; NaN in it shows in what is made of it."""

    @abstractmethod
    def rebuild(
        self, kept: tuple[Tensor, ...], shape: tuple[int, int], dtype: torch.dtype
    ) -> Float[Tensor, "n p"]:
        """X̃, of this ``shape`` (n, p) and dtype, from what was kept."""

    @abstractmethod
    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        """The bytes of what is kept."""


@dataclass(frozen=True)
class LargestEntries(Coarse):
    """The rate · n · p entries of largest size, and their places (Chen et al. 2022, DropIT,
    https://arxiv.org/abs/2202.13808).
    """

    def keep(self, x: Float[Tensor, "n p"]) -> tuple[Tensor, ...]:
        flat = x.flatten()
        places = flat.abs().topk(kept_count(self.rate, x.numel())).indices
        return flat[places], places.to(torch.int32)

    def rebuild(
        self, kept: tuple[Tensor, ...], shape: tuple[int, int], dtype: torch.dtype
    ) -> Float[Tensor, "n p"]:
        values, places = kept
        zeros = torch.zeros(shape, dtype=dtype, device=values.device)
        zeros.flatten()[places.long()] = values.to(dtype)  # a view of zeros
        return zeros

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return kept_count(self.rate, n * p) * (dtype.itemsize + 4)


@dataclass(frozen=True)
class HotColumns(Coarse):
    """The rate · p columns of largest norm: the channels with outliers (2026, CHON,
    https://arxiv.org/abs/2602.02047).
    """

    def keep(self, x: Float[Tensor, "n p"]) -> tuple[Tensor, ...]:
        columns = norm(x, dim=0).topk(kept_count(self.rate, x.shape[1])).indices
        return x[:, columns], columns.to(torch.int32)

    def rebuild(
        self, kept: tuple[Tensor, ...], shape: tuple[int, int], dtype: torch.dtype
    ) -> Float[Tensor, "n p"]:
        values, columns = kept
        zeros = torch.zeros(shape, dtype=dtype, device=values.device)
        return zeros.index_copy_(1, columns.long(), values.to(dtype))

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return kept_count(self.rate, p) * (n * dtype.itemsize + 4)


@dataclass(frozen=True)
class NearestRounding(Coarse):
    """X rounded to the nearest of 2^bits even steps in each row, bits the most of 1, 2, 4 and 8
    that are a ``rate`` of 32 (and 1 for less), with the ends of each row's grid.
    """

    tensors = 3

    @property
    def bits(self) -> int:
        """Of an entry."""
        return max((b for b in BITS if b <= 32 * self.rate), default=1)

    def keep(self, x: Float[Tensor, "n p"]) -> tuple[Tensor, ...]:
        low, step = self.rounding.grid(x)
        return round_and_pack(x, low, step, self.bits, lambda f: f >= 0.5), low, step

    def rebuild(
        self, kept: tuple[Tensor, ...], shape: tuple[int, int], dtype: torch.dtype
    ) -> Float[Tensor, "n p"]:
        packed, low, step = kept
        return unpack_and_scale(packed, low, step, self.bits, shape[1]).to(dtype)

    @property
    def rounding(self) -> StochasticRounding:
        """The estimator with the same grid."""
        return StochasticRounding(self.bits)

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return self.rounding.kept_bytes(n, p, dtype) - SEED_BYTES


@dataclass(frozen=True)
class SubtokenDirections(Coarse):
    """Each row cut into sub-tokens of 1/rate features, of which the coordinate along one direction
    is kept, and the direction of each place: nearly that of the largest singular value (2024,
    VeLoRA, https://arxiv.org/abs/2405.17991, which takes the mean sub-token of the first batch).
    """

    def size(self, p: int) -> int:
        """Features of a sub-token; the last is filled up by zeros."""
        return max(1, min(p, round(1 / self.rate)))

    def cut(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n places size"]:
        """The sub-tokens in float32 or wider."""
        size = self.size(x.shape[1])
        padded = torch.nn.functional.pad(wide(x), (0, -x.shape[1] % size))
        return padded.reshape(x.shape[0], padded.shape[1] // size, size)

    def keep(self, x: Float[Tensor, "n p"]) -> tuple[Tensor, ...]:
        z = self.cut(x).transpose(0, 1)  # places × n × size
        g = Generator()
        g.manual_seed(0)
        d = g.normals(1, z.shape[2], 1).to(z).expand(z.shape[0], -1, -1)
        for _ in range(2 * PASSES):
            d = torch.linalg.qr(z.mT @ (z @ d)).Q
        return (z @ d)[:, :, 0].T.to(x.dtype).contiguous(), d[:, :, 0].contiguous()

    def rebuild(
        self, kept: tuple[Tensor, ...], shape: tuple[int, int], dtype: torch.dtype
    ) -> Float[Tensor, "n p"]:
        along, directions = kept
        z = along.to(directions.dtype)[:, :, None] * directions
        return z.flatten(1)[:, : shape[1]].to(dtype)

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        size = self.size(p)
        return -(-p // size) * (n * dtype.itemsize + size * max(dtype.itemsize, 4))


@dataclass(frozen=True)
class LowRank(Coarse):
    """X projected on the r = max(1, round(rate · p)) directions of its largest singular values,
    nearly, and the directions (2025, LoRAct, https://arxiv.org/abs/2509.23472).
    """

    def keep(self, x: Float[Tensor, "n p"]) -> tuple[Tensor, ...]:
        directions = principal_directions(x, kept_count(self.rate, x.shape[1]))
        return (wide(x) @ directions).to(x.dtype), directions

    def rebuild(
        self, kept: tuple[Tensor, ...], shape: tuple[int, int], dtype: torch.dtype
    ) -> Float[Tensor, "n p"]:
        coordinates, directions = kept
        return (coordinates.to(directions.dtype) @ directions.T).to(dtype)

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return kept_count(self.rate, p) * (n * dtype.itemsize + p * max(dtype.itemsize, 4))


@dataclass(frozen=True)
class Generators(Coarse):
    """The rate · n rows of largest norm, and for each row the nearest of the lines through them
    (2025, PAMM, https://arxiv.org/abs/2506.02939, which takes rows at random).
    """

    tensors = 3

    def keep(self, x: Float[Tensor, "n p"]) -> tuple[Tensor, ...]:
        z = wide(x)
        rows = x[row_sq(x).topk(kept_count(self.rate, x.shape[0])).indices]
        lengths = row_sq(rows).to(z.dtype)
        along = z @ wide(rows).T / torch.where(lengths == 0, 1, lengths)
        if not len(rows):
            return rows, x.new_zeros(0), torch.zeros(0, dtype=torch.int32, device=x.device)
        line = (along.abs() * lengths.sqrt()).argmax(1, keepdim=True)
        return rows, along.gather(1, line)[:, 0].to(x.dtype), line[:, 0].to(torch.int32)

    def rebuild(
        self, kept: tuple[Tensor, ...], shape: tuple[int, int], dtype: torch.dtype
    ) -> Float[Tensor, "n p"]:
        rows, along, line = kept
        return (wide(rows)[line.long()] * wide(along)[:, None]).to(dtype)

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return kept_count(self.rate, n) * p * dtype.itemsize + n * (dtype.itemsize + 4)


def principal_directions(x: Float[Tensor, "n p"], r: int) -> Float[Tensor, "p r"]:
    """Orthonormal directions near the r largest right singular vectors, by subspace iteration from
    the same start every time (Halko, Martinsson, Tropp 2011,
    https://doi.org/10.1137/090771806), in float32 or wider.
    """
    z = wide(x)
    g = Generator()
    g.manual_seed(0)
    q = torch.linalg.qr(g.normals(z.shape[1], r).to(z)).Q
    for _ in range(PASSES):
        q = torch.linalg.qr(z.T @ (z @ q)).Q
    return q
