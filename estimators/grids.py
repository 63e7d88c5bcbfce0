"""Grids of few values, and scales of few bits that bring a block of numbers within a grid."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SCALES_MOST = 448  # the largest e4m3, in which scales are written


def float_values(dtype: torch.dtype) -> Float[Tensor, " levels"]:
    """All finite values of an 8-bit floating dtype."""
    values = torch.arange(256, dtype=torch.uint8).view(dtype).double()
    return values[values.isfinite()].unique()


def mirror(values: list[float]) -> Float[Tensor, " levels"]:
    """Positive values, their negatives and zero, in order."""
    positive = torch.tensor(values, dtype=torch.float64)
    return torch.cat([-positive.flip(0), torch.zeros(1, dtype=torch.float64), positive])


# of 4-bit normal floats, the quantiles of a normal distribution between −1 and 1: Dettmers et al.
# 2023, https://arxiv.org/abs/2305.14314, appendix E
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635]
NF4 += [-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725]
NF4 += [0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941]
NF4 += [0.7229568362236023, 1.0]

GRIDS: dict[str, Float[Tensor, " levels"]] = {
    "e2m1": mirror([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]),
    "e4m3": float_values(torch.float8_e4m3fn),
    "e5m2": float_values(torch.float8_e5m2),
    "log2": mirror([2.0**i for i in range(-6, 1)]),
    "nf4": torch.tensor(NF4, dtype=torch.float64),
}


# of those that are floating formats: bits of fraction, and the exponent from which on they are
# normal
FORMATS = {"e2m1": (1, 0), "e4m3": (3, -6), "e5m2": (2, -14), "log2": (0, -6)}


@cache
def levels_of(grid: str, dtype: torch.dtype, device: torch.device) -> Float[Tensor, " levels"]:
    """The values of a grid, in order."""
    return GRIDS[grid].to(device, dtype)


def locate(
    v: Float[Tensor, "*shape"], levels: Float[Tensor, " levels"]
) -> tuple[Int[Tensor, "*shape"], Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """The number of the level a ≤ v, and v − a and b − v for the next level b."""
    down = torch.searchsorted(levels, v.contiguous(), right=True) - 1
    down = down.clamp_(0, len(levels) - 2)
    return down, v - levels[down], levels[down + 1] - v


def goes_up_to_nearest(
    down: Int[Tensor, "*shape"],
    above: Float[Tensor, "*shape"],
    below: Float[Tensor, "*shape"],
    levels: Float[Tensor, " levels"],
) -> Bool[Tensor, "*shape"]:
    """Whether the nearest of two neighbouring levels is the upper; of a tie the even one, as
    floating point counts from zero.
    """
    odd = (down - len(levels) // 2) % 2 == 1  # zero is in the middle
    return (above > below) | ((above == below) & odd)


class ScaleFormat(NamedTuple):
    """How the scales of blocks are written: never smaller than ``need``, so that nothing clips.

    ``write`` gives what is kept, ``read`` the scales again, NaN of one that is not finite.
    ``most`` is the largest that can be written.
    """

    write: Callable[[Float[Tensor, "rows blocks"]], tuple[Tensor, ...]]
    read: Callable[..., Float[Tensor, "rows blocks"]]
    bytes_each: Callable[[int], int]  # of the bytes of a float that X is worked in
    bytes_once: Callable[[int], int]
    most: float = float("inf")


def write_powers(need: Float[Tensor, "rows blocks"]) -> tuple[Tensor, ...]:
    """The exponent of the least power of two that is enough, within ±127; −128 of what is not
    finite.
    """
    mantissa, exponent = torch.frexp(need)
    exponent = exponent - (mantissa <= 0.5).to(exponent.dtype)
    fits = need.isfinite() & (exponent <= 127)
    return (torch.where(fits, exponent.clamp(min=-127), -128).to(torch.int8),)


def read_powers(exponents: Tensor, dtype: torch.dtype) -> Float[Tensor, "rows blocks"]:
    powers = torch.ldexp(torch.ones_like(exponents, dtype=dtype), exponents.int())
    return torch.where(exponents == -128, torch.nan, powers)


def write_e4m3(need: Float[Tensor, "rows blocks"]) -> tuple[Tensor, ...]:
    """The least e4m3 that is enough, of a unit that makes the largest of all 448."""
    unit = e4m3_unit(need.max() if need.numel() else need.new_zeros(()))
    v = (need / unit * (1 + 4 * torch.finfo(need.dtype).eps)).clamp(max=SCALES_MOST)
    nearest = v.to(torch.float8_e4m3fn)  # positive codes count up with their values
    return nearest.view(torch.uint8) + (nearest.to(v.dtype) < v), unit


def e4m3_unit(largest: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The unit in which the largest scale of all is 448."""
    finfo = torch.finfo(largest.dtype)
    return (largest / SCALES_MOST * (1 + 8 * finfo.eps)).clamp(min=finfo.tiny)


def read_e4m3(kept: Tensor, unit: Tensor, dtype: torch.dtype) -> Float[Tensor, "rows blocks"]:
    return kept.view(torch.float8_e4m3fn).to(dtype) * unit


SCALES = {
    "float": ScaleFormat(
        lambda need: (need,), lambda kept, dtype: kept.to(dtype), lambda b: b, lambda b: 0
    ),
    "power": ScaleFormat(write_powers, read_powers, lambda b: 1, lambda b: 0, 2.0**127),
    "e4m3": ScaleFormat(write_e4m3, read_e4m3, lambda b: 1, lambda b: b),
}


def least_scale(largest: Float[Tensor, "*shape"], most: float) -> Float[Tensor, "*shape"]:
    """The least scale at which ``largest`` is not above ``most``, the end of a grid."""
    scale = largest / most
    larger = scale.nextafter(torch.full_like(scale, torch.inf))
    return torch.where(largest / scale > most, larger, scale)
