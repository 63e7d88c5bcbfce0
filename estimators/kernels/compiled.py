"""What runs in C++ on a CPU (``native``), from tensors to tensors: each function gives what the
plain path of the door (``kernels``) gives, to the bit.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sketchvar.estimators.grids import FORMATS, GRIDS, e4m3_unit, least_scale
from sketchvar.estimators.kernels.counter import ROUNDING
from sketchvar.estimators.kernels.native import by_rows, call

# how the scales of blocks are kept: a number for C++, and a dtype
KINDS = {"float": (0, torch.float32), "power": (1, torch.int8), "e4m3": (2, torch.uint8)}


def lie_in_rows(x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """X with the entries of a row beside each other."""
    return x if x.stride(1) == 1 else x.contiguous()


def round_even(
    x: Float[Tensor, "n p"], group: int, bits: int, seed: int, mean: Tensor | None
) -> tuple[UInt8[Tensor, "n bytes"], Float[Tensor, "n groups"], Float[Tensor, "n groups"]]:
    """Packed numbers of steps, least values and steps of X less ``mean``."""
    (n, p), x = x.shape, lie_in_rows(x)
    packed = torch.empty(n, -(-p * bits // 8), dtype=torch.uint8)
    low, step = x.new_empty(n, p // group), x.new_empty(n, p // group)

    def run(start: int, end: int) -> None:
        call(
            "round_even", x[start:], x.stride(0), mean, start, end - start, p, group, bits, seed,
            ROUNDING, packed[start:], low[start:], step[start:],
        )  # fmt: skip

    by_rows(n, run)
    return packed, low, step


def restore_even(
    packed: UInt8[Tensor, "n bytes"],
    low: Float[Tensor, "n groups"],
    step: Float[Tensor, "n groups"],
    bits: int,
    p: int,
) -> Float[Tensor, "n p"]:
    """low + step · level."""
    out = low.new_empty(low.shape[0], p)
    group = p // low.shape[1] if p else 1
    kept = [t.contiguous() for t in (packed, low, step)]

    def run(start: int, end: int) -> None:
        codes, least, delta = (t[start:] for t in kept)
        call("restore_even", codes, end - start, p, group, bits, least, delta, out[start:])

    by_rows(out.shape[0], run)
    return out


def largest_magnitudes(x: Float[Tensor, "n p"], block: int) -> Float[Tensor, "n blocks"]:
    """The largest magnitude of each block of a row."""
    (n, p), x = x.shape, lie_in_rows(x)
    out = x.new_empty(n, -(-p // block))

    def run(start: int, end: int) -> None:
        size = (x.stride(0), end - start, p, block)
        call("largest_magnitudes", x[start:], *size, out[start:])

    by_rows(n, run)
    return out


def describe_format(grid: str) -> tuple[int, int, int]:
    """Of a floating format its bits of fraction, least exponent and number of positive values."""
    return (*FORMATS[grid], len(GRIDS[grid]) // 2)


def round_floating(
    x: Float[Tensor, "n p"], block: int, grid: str, scale: str, bits: int, seed: int
) -> tuple[Tensor, ...]:
    """Packed numbers of the values of a floating format, and the scales of the blocks as they are
    kept.
    """
    (n, p), x = x.shape, lie_in_rows(x)
    packed = torch.empty(n, -(-p * bits // 8), dtype=torch.uint8)
    (kind, dtype), end = KINDS[scale], int(GRIDS[grid].max())
    kept, largest, unit = torch.empty(n, -(-p // block), dtype=dtype), None, None
    if scale == "e4m3":  # of a unit that all of X decides
        largest = largest_magnitudes(x, block)
        most = largest.max() if largest.numel() else x.new_zeros(())
        unit = e4m3_unit(least_scale(most, float(end)))

    def run(start: int, stop: int) -> None:
        call(
            "round_floating", x[start:], x.stride(0), start, stop - start, p, block, bits,
            *describe_format(grid), end, kind, largest if largest is None else largest[start:],
            unit, seed, ROUNDING, packed[start:], kept[start:],
        )  # fmt: skip

    by_rows(n, run)
    return (packed, kept) if unit is None else (packed, kept, unit)


def restore_floating(
    packed: UInt8[Tensor, "n bytes"],
    kept: tuple[Tensor, ...],
    block: int,
    grid: str,
    scale: str,
    bits: int,
    p: int,
) -> Float[Tensor, "n p"]:
    """The value of each number times the scale of its block, from what ``round_floating`` gave."""
    packed, each = packed.contiguous(), kept[0].contiguous()
    unit = kept[1] if len(kept) > 1 else None
    out = torch.empty(each.shape[0], p)

    def run(start: int, stop: int) -> None:
        call(
            "restore_floating", packed[start:], stop - start, p, block, bits,
            *describe_format(grid), KINDS[scale][0], each[start:], unit, out[start:],
        )  # fmt: skip

    by_rows(out.shape[0], run)
    return out


def restore_values(
    packed: UInt8[Tensor, "n bytes"],
    values: Float[Tensor, " levels"],
    scale: Float[Tensor, "n blocks"],
    block: int,
    bits: int,
    p: int,
) -> Float[Tensor, "n p"]:
    """The value of each code times the scale of its block."""
    packed, scale = packed.contiguous(), scale.contiguous()
    out = scale.new_empty(scale.shape[0], p)

    def run(start: int, end: int) -> None:
        codes, each = packed[start:], scale[start:]
        call("restore_values", codes, end - start, p, block, bits, values, each, out[start:])

    by_rows(out.shape[0], run)
    return out
