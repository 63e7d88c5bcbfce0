"""GPU kernels in Triton for what PyTorch's own operators pass over memory too often to do, or would
have to store: how each is launched. What runs is in ``programs``.

Each gives what the plain path of the door (``kernels``) gives, with the numbers of ``counter`` from
the same seed. Block sizes come from counting bytes and registers; ``sketchvar gpu-suite`` times
them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchvar.estimators.kernels import counter, programs

# entries of S -> the program that multiplies by a matrix of them
PRODUCTS = {
    counter.normals: programs.multiply_normals,
    counter.sign_matrix: programs.multiply_signs,
}

# What one program works on; unless it says otherwise it is four warps, 128 threads.
DRAWN = 128  # rows of a partition, one a thread
SUMMED = 2048  # columns of a bucket at most: 16 sums a thread
GATHERED = 4  # rows of a bucket that are read at once, to hide the time that memory takes
# Sides of a square of SᵀX, for eight warps: 64 or 16 sums a thread. Elements twice as wide take
# twice the shared memory, so the square is smaller.
SIDE_16_BIT, SIDE_32_BIT = 128, 64
BITS_PER_PASS = 7  # of a transform: its factor is at most 128 × 128
TRANSFORMED = 64  # columns of a transform, for eight warps
PACKED = 128  # calls of a row at most, one a thread
UNPACKED = 1024  # numbers of a row at most, eight a thread


def partition(n: int, k: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Order and signs of n rows and offsets of k buckets, sizes equal up to one; scratch that lives
    for one product.
    """
    order, signs = (torch.empty(n, device=device, dtype=t) for t in (torch.int32, torch.float32))
    offsets = torch.empty(k, device=device, dtype=torch.int32)
    if n:
        with on(order):
            programs.draw_partition[triton.cdiv(n, DRAWN),](
                seed, order, signs, offsets, n, k, counter.side(n), BLOCK=DRAWN
            )
    return order, offsets, signs


def bucket_sums(order: Tensor, offsets: Tensor, signs: Tensor, x: Tensor) -> Tensor:
    """SᵀX (k × d): each bucket's rows gathered, signed and summed in float32 or wider, in one read
    of X.
    """
    k, d = offsets.shape[0], x.shape[1]
    out = x.new_empty(k, d)
    wide = tl.float64 if x.dtype == torch.float64 else tl.float32
    columns = min(triton.next_power_of_2(d), SUMMED)
    if out.numel():
        with on(x):
            programs.sum_buckets[k, triton.cdiv(d, columns)](
                x, order, offsets, signs, out, order.shape[0], k, d, *x.stride(),
                ROWS=GATHERED, COLUMNS=columns, WIDE=wide,
            )  # fmt: skip
    return out


def product(entries: Callable[..., Tensor], k: int, seed: int, x: Tensor) -> Tensor:
    """SᵀX (k × d) for √k·S = ``entries(n, k, seed)``, one of ``PRODUCTS``, made tile by tile as it
    is multiplied.
    """
    (n, d), out = x.shape, x.new_empty(k, x.shape[1])
    if out.numel():
        side = SIDE_16_BIT if x.element_size() == 2 else SIDE_32_BIT
        # in this order those that read the same columns of X run together
        tiles = (triton.cdiv(k, side), triton.cdiv(d, side))
        with on(x):
            PRODUCTS[entries][tiles](
                seed, x, out, n, k, d, *x.stride(), k**-0.5,
                K=side, D=side, PRECISION=choose_precision(), num_warps=8,
            )  # fmt: skip
    return out


def hadamard(x: Tensor, size: int) -> Tensor:
    """H·X for X padded to ``size`` = 2^b rows, b ≥ 4, in few passes over memory."""
    bits = size.bit_length() - 1
    passes = -(-bits // BITS_PER_PASS)
    out, done = x.new_empty(size, x.shape[1]), 1
    source = x
    for i in range(passes if out.numel() else 0):
        factor = 2 ** ((bits + i) // passes)
        tiles = (size // factor, triton.cdiv(x.shape[1], TRANSFORMED))
        # tf32x3: three products in TF32 have the precision of one in float32
        with on(x):
            programs.transform[tiles](
                source, out, source.shape[0], x.shape[1], *source.stride(), done,
                FACTOR=factor, COLUMNS=TRANSFORMED, PRECISION="tf32x3", num_warps=8,
            )  # fmt: skip
        source, done = out, done * factor
    return out


def round_and_pack(x: Tensor, low: Tensor, step: Tensor, bits: int, seed: int) -> Tensor:
    """X (n × p) as numbers of steps above ``low`` (both n × groups, float32), rounded at random,
    packed into bytes.
    """
    n, p = x.shape
    packed = torch.empty(n, -(-p * bits // 8), device=x.device, dtype=torch.uint8)
    if packed.numel():
        width, calls = packed.shape[1], triton.cdiv(p, 8)
        block = min(triton.next_power_of_2(calls), PACKED)
        with on(x):
            programs.round_rows[n, triton.cdiv(calls, block)](
                seed, x, low, step, packed, p, width, p // low.shape[1], low.shape[1], *x.stride(),
                BITS=bits, BLOCK=block, enable_fp_fusion=False,
            )  # fmt: skip
    return packed


def unpack_and_scale(
    packed: Tensor, low: Tensor, step: Tensor, bits: int, p: int, dtype: torch.dtype
) -> Tensor:
    """low + step · level (n × p) from what ``round_and_pack`` gave."""
    n, width = packed.shape
    out = torch.empty(n, p, device=packed.device, dtype=dtype)
    if out.numel():
        block = min(triton.next_power_of_2(p), UNPACKED)
        with on(packed):
            programs.restore_rows[n, triton.cdiv(p, block)](
                packed, low, step, out, p, width, p // low.shape[1], low.shape[1],
                BITS=bits, BLOCK=block, enable_fp_fusion=False,
            )  # fmt: skip
    return out


def multiply_codes(
    packed: Tensor, low: Tensor, step: Tensor, bits: int, p: int, y: Tensor, mean: Tensor | None
) -> Tensor:
    """X̂ᵀ(Y − 1 ``mean``) (p × q) from what ``round_and_pack`` gave, X̂ made tile by tile as it is
    multiplied and never stored; of 8 bits in half precision as two numbers that add up to it.
    """
    (n, q), narrow = y.shape, y.element_size() == 2
    out = y.new_empty(q, p)
    if out.numel():
        side = SIDE_16_BIT if narrow else SIDE_32_BIT
        with on(y):
            programs.multiply_codes[triton.cdiv(p, side), triton.cdiv(q, side)](
                packed, low, step, y, y if mean is None else mean, out, n, p, q, packed.shape[1],
                p // low.shape[1], low.shape[1], *y.stride(), BITS=bits, CENTER=mean is not None,
                TWICE=narrow and bits == 8, ROWS=counter.LANES, P=side, Q=side,
                PRECISION=choose_precision(), num_warps=8,
            )  # fmt: skip
    return out.T


def on(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever that of its arguments."""
    return torch.cuda.device_of(x)


def choose_precision() -> str:
    """How float32 tiles are multiplied: as PyTorch is told to multiply matrices."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
