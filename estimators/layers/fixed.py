"""A payload of random size in tensors of one size: checkpointing compares the shapes that two
passes save.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

DIMENSIONS = 4  # numbers that describe one tensor: how many dimensions it has, and each
ALIGNED = 8  # bytes


def is_checkpointed() -> bool:
    """Whether what autograd saves now will be computed again by ``torch.utils.checkpoint``."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint"


def pack(tensors: Sequence[Tensor], size: int) -> list[Tensor]:
    """The shapes of ``tensors``, on the CPU, and their bytes in a tensor of ``size`` bytes or what
    they need.
    """
    shapes = torch.zeros(len(tensors), DIMENSIONS, dtype=torch.int64)
    flat = []
    for i, t in enumerate(tensors):
        shapes[i, : t.ndim + 1] = torch.tensor([t.ndim, *t.shape])
        piece = t.contiguous().view(-1).view(torch.uint8)
        flat += [piece, piece.new_zeros(-len(piece) % ALIGNED)]
    short = size - sum(map(len, flat))
    return [shapes, torch.cat([*flat, flat[0].new_zeros(max(short, 0))])]


def unpack(shapes: Tensor, flat: Tensor, dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """The tensors that ``pack`` was given, of these dtypes."""
    tensors, start = [], 0
    for (ndim, *sizes), dtype in zip(shapes.tolist(), dtypes, strict=True):
        shape = torch.Size(sizes[:ndim])
        end = start + shape.numel() * dtype.itemsize
        tensors.append(flat[start:end].view(dtype).view(shape))
        start = end + -end % ALIGNED
    return tensors
