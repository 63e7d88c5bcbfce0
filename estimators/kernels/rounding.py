"""Rounding to a grid at random, and packing the numbers of its steps into bytes."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sketchvar.estimators.kernels import native
from sketchvar.estimators.norms import wide
from sketchvar.estimators.seeds import Generator

TILE = 128  # rows at a time on a CPU: what is made of them stays in the cache


def round_tiles(
    x: Float[Tensor, "n p"], group: int, bits: int, g: Generator
) -> tuple[UInt8[Tensor, "n bytes"], Float[Tensor, "n groups"], Float[Tensor, "n groups"]]:
    """Packed numbers of steps, least values and steps of the groups of each row."""
    done, size = [], TILE if x.device.type == "cpu" else max(len(x), 1)
    for i, rows in enumerate(x.split(size)):
        low, step = even_steps(*find_ends(rows, group), bits)
        numbers = partial(native.uniforms, len(rows), x.shape[1], device=x.device, first=i * size)
        flip = partial(g.flips, numbers=numbers)
        done.append((round_and_pack(rows, low, step, bits, flip), low, step))
    packed, low, step = (torch.cat(tiles) for tiles in zip(*done, strict=True))
    return packed, low, step


def find_ends(
    x: Float[Tensor, "n p"], group: int
) -> tuple[Float[Tensor, "n groups"], Float[Tensor, "n groups"]]:
    """Least and largest value of each group of each row, whatever the bits."""
    x = x.reshape(x.shape[0], x.shape[1] // group, group)
    return wide(x.amin(2)), wide(x.amax(2))  # together six times faster than aminmax on a CPU


def even_steps(
    low: Float[Tensor, "n groups"], high: Float[Tensor, "n groups"], bits: int
) -> tuple[Float[Tensor, "n groups"], Float[Tensor, "n groups"]]:
    """Least value and Δ of each group of each row; Δ is large enough to reach the largest."""
    span, most = high - low, 2**bits - 1
    step = span / most
    larger = step.nextafter(torch.full_like(step, torch.inf))
    return low, torch.where(step * most < span, larger, step)


def count_steps(
    x: Float[Tensor, "n p"], low: Float[Tensor, "n groups"], step: Float[Tensor, "n groups"]
) -> Float[Tensor, "n groups group"]:
    """How many steps each entry is above the least of its group."""
    groups = low.shape[1]
    grouped = wide(x).reshape(x.shape[0], groups, x.shape[1] // groups if groups else 1)
    per_step = torch.where(step == 0, 1, step)  # a constant group: 0 steps of 0
    return (grouped - low[:, :, None]).div_(per_step[:, :, None])


def round_and_pack(
    x: Float[Tensor, "n p"],
    low: Float[Tensor, "n groups"],
    step: Float[Tensor, "n groups"],
    bits: int,
    flip: Callable[[Tensor], Tensor],
) -> UInt8[Tensor, "n bytes"]:
    """Packed numbers of steps; an entry a fraction f of a step above a grid point goes up where
    ``flip(f)``, one coin each.
    """
    steps = count_steps(x, low, step)
    down = steps.floor()
    levels = (down + flip(steps - down)).clamp_(max=2**bits - 1)
    return pack(levels.to(torch.uint8).reshape(x.shape), bits)


def unpack_and_scale(
    packed: UInt8[Tensor, "n bytes"],
    low: Float[Tensor, "n groups"],
    step: Float[Tensor, "n groups"],
    bits: int,
    p: int,
) -> Float[Tensor, "n p"]:
    """low + step · level, in the dtype of ``low``."""
    n, groups = low.shape
    levels = unpack(packed, bits, p).reshape(n, groups, p // groups if groups else 1)
    return (low[:, :, None] + levels.to(low.dtype) * step[:, :, None]).reshape(n, p)


def pack(levels: UInt8[Tensor, "n p"], bits: int) -> UInt8[Tensor, "n bytes"]:
    """Numbers below 2^bits, 8/bits of them to a byte, the first in the lowest bits; a row starts a
    new byte.
    """
    each = 8 // bits
    n, p = levels.shape
    levels = torch.nn.functional.pad(levels, (0, -p % each)).reshape(n, -(-p // each), each)
    packed = levels[:, :, 0].clone()
    for i in range(1, each):
        packed |= levels[:, :, i] << (bits * i)
    return packed


def unpack(packed: UInt8[Tensor, "n bytes"], bits: int, p: int) -> UInt8[Tensor, "n p"]:
    """The p numbers of each row that were packed."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    return ((packed[:, :, None] >> shifts) & (2**bits - 1)).flatten(1)[:, :p]
