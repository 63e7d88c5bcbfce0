"""Rounding to a grid of values, each block of a row in units of its scale."""

from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sketchvar.estimators.grids import levels_of, locate
from sketchvar.estimators.kernels import native
from sketchvar.estimators.kernels.rounding import TILE, pack, unpack
from sketchvar.estimators.seeds import Generator


def cut_blocks(z: Float[Tensor, "rows columns"], size: int) -> Float[Tensor, "rows blocks block"]:
    """The entries block by block, the last filled up by zeros."""
    count = -(-z.shape[1] // size)
    padded = torch.nn.functional.pad(z, (0, count * size - z.shape[1]))
    return padded.reshape(z.shape[0], count, size)


def divide_blocks(
    z: Float[Tensor, "rows columns"], scale: Float[Tensor, "rows blocks"], size: int
) -> Float[Tensor, "rows blocks block"]:
    """The entries in units of their scales."""
    return cut_blocks(z, size) / torch.where(scale == 0, 1, scale)[:, :, None]


def round_tiles(
    z: Float[Tensor, "rows columns"],
    scale: Float[Tensor, "rows blocks"],
    size: int,
    grid: str,
    bits: int,
    g: Generator,
) -> UInt8[Tensor, "rows bytes"]:
    """Numbers of values of the grid, at random, packed."""
    levels, done = levels_of(grid, z.dtype, z.device), []
    tile = TILE if z.device.type == "cpu" else max(len(z), 1)
    for i, (rows, each) in enumerate(zip(z.split(tile), scale.split(tile), strict=True)):
        v = divide_blocks(rows, each, size)
        down, above, below = locate(v, levels)
        width = v.shape[1] * v.shape[2]
        numbers = partial(native.uniforms, len(v), width, device=z.device, first=i * tile)
        codes = (down + g.flips(above / (above + below), numbers)).to(torch.uint8)
        done.append(pack(codes.flatten(1)[:, : z.shape[1]], bits))
    return torch.cat(done)


def restore(
    packed: UInt8[Tensor, "rows bytes"],
    scale: Float[Tensor, "rows blocks"],
    size: int,
    grid: str,
    bits: int,
    columns: int,
) -> Float[Tensor, "rows columns"]:
    """The value of each code times the scale of its block, in the dtype of the scales."""
    values = levels_of(grid, scale.dtype, packed.device)[unpack(packed, bits, columns).long()]
    return (cut_blocks(values, size) * scale[:, :, None]).flatten(1)[:, :columns]
