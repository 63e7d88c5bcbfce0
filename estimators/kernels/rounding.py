"""Rounding to a grid at random, and packing the numbers of its steps into bytes."""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sketchvar.estimators.norms import wide


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
