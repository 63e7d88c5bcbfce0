"""GPU kernels in Triton for what PyTorch's own operators pass over memory too often to do, or would
have to store.

Each gives what its plain PyTorch path gives, from the same seed: the numbers of ``counter.py`` and,
in turn, ``bucket_sums``, a product with ``normals`` or ``sign_matrix``, ``hadamard``,
``StochasticRounding``'s ``keep`` and ``restore``. Block sizes come from counting bytes and
registers; ``analysis gpu-suite`` is what times them.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchvar.estimators.kernels import counter

DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
)  # of all but ``bucket_sums``, which takes any
PERMUTATION, SIGNS = tl.constexpr(counter.PERMUTATION), tl.constexpr(counter.SIGNS)
NORMALS, SIGN_MATRIX = tl.constexpr(counter.NORMALS), tl.constexpr(counter.SIGN_MATRIX)
ROUNDING, MIXING, LANES = (
    tl.constexpr(counter.ROUNDING),
    tl.constexpr(counter.MIXING),
    tl.constexpr(counter.LANES),
)


def partition(n: int, k: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Order and signs of n rows and offsets of k buckets, sizes equal up to one; scratch that lives
    for one product.
    """
    order, signs = (torch.empty(n, device=device, dtype=t) for t in (torch.int32, torch.float32))
    offsets = torch.empty(k, device=device, dtype=torch.int32)
    if n:
        with on(order):
            draw_partition[triton.cdiv(n, 128),](
                seed, order, signs, offsets, n, k, counter.side(n), BLOCK=128
            )
    return order, offsets, signs


def bucket_sums(order: Tensor, offsets: Tensor, signs: Tensor, x: Tensor) -> Tensor:
    """SᵀX (k × d): each bucket's rows gathered, signed and summed in float32 or wider, in one read
    of X.
    """
    k, d = offsets.shape[0], x.shape[1]
    out = x.new_empty(k, d)
    wide = tl.float64 if x.dtype == torch.float64 else tl.float32
    columns = min(triton.next_power_of_2(d), 2048)
    if out.numel():
        with on(x):
            sum_buckets[k, triton.cdiv(d, columns)](
                x,
                order,
                offsets,
                signs,
                out,
                order.shape[0],
                k,
                d,
                *x.stride(),
                ROWS=4,
                COLUMNS=columns,
                WIDE=wide,
            )
    return out


def product(entries: Callable[..., Tensor], k: int, seed: int, x: Tensor) -> Tensor:
    """SᵀX (k × d) for √k·S = ``entries(n, k, seed)``, normals or signs, made tile by tile as it is
    multiplied.
    """
    kernel = {counter.normals: multiply_normals, counter.sign_matrix: multiply_signs}[entries]
    (n, d), out = x.shape, x.new_empty(k, x.shape[1])
    if out.numel():
        side = 128 if x.element_size() == 2 else 64
        tiles = (
            triton.cdiv(k, side),
            triton.cdiv(d, side),
        )  # those that read the same columns of X run together
        with on(x):
            kernel[tiles](
                seed,
                x,
                out,
                n,
                k,
                d,
                *x.stride(),
                k**-0.5,
                K=side,
                D=side,
                PRECISION=precision(),
                num_warps=8,
            )
    return out


def hadamard(x: Tensor, size: int) -> Tensor:
    """H·X for X padded to ``size`` = 2^b rows, b ≥ 4: passes over memory of at most seven bits
    each.
    """
    bits = size.bit_length() - 1
    passes = -(-bits // 7)
    out, done = x.new_empty(size, x.shape[1]), 1
    source = x
    for i in range(passes if out.numel() else 0):
        factor = 2 ** ((bits + i) // passes)
        tiles = (size // factor, triton.cdiv(x.shape[1], 64))
        with on(x):
            transform[tiles](
                source, out, source.shape[0], x.shape[1], *source.stride(), done,
                FACTOR=factor, COLUMNS=64, PRECISION="tf32x3", num_warps=8,
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
        width = packed.shape[1]
        block = min(triton.next_power_of_2(width), 512)
        with on(x):
            round_rows[n, triton.cdiv(width, block)](
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
        block = min(triton.next_power_of_2(p), 1024)
        with on(packed):
            restore_rows[n, triton.cdiv(p, block)](
                packed, low, step, out, p, width, p // low.shape[1], low.shape[1],
                BITS=bits, BLOCK=block, enable_fp_fusion=False,
            )  # fmt: skip
    return out


def on(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever that of its arguments."""
    return torch.cuda.device_of(x)


def precision() -> str:
    """How float32 tiles are multiplied: as PyTorch is told to multiply matrices."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


@triton.jit(do_not_specialize=["seed"])
def draw_partition(seed, order, signs, offsets, n, k, side, BLOCK: tl.constexpr):
    slot = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = mixed(seed, tl.where(slot < n, slot, 0).to(tl.uint32), side)
    while tl.max((row >= n).to(tl.int32), 0) > 0:
        row = tl.where(row >= n, mixed(seed, row, side), row)
    word, _, _, _ = tl.philox(seed.to(tl.int64), slot, 0, SIGNS, 0)
    tl.store(order + slot, row.to(tl.int32), slot < n)
    tl.store(signs + slot, 1.0 - 2.0 * (word & 1).to(tl.float32), slot < n)
    tl.store(offsets + slot, slot * (n // k) + tl.minimum(slot, n % k), slot < k)


@triton.jit
def mixed(seed, row, side):
    side = side.to(tl.uint32)
    high, low = row // side, row % side
    for call in range(0, MIXING, 2):
        word, _, _, _ = tl.philox(seed.to(tl.int64), low, 0, PERMUTATION, call)
        high = (high + tl.umulhi(word, side)) % side
        word, _, _, _ = tl.philox(seed.to(tl.int64), high, 0, PERMUTATION, call + 1)
        low = (low + tl.umulhi(word, side)) % side
    return high * side + low


@triton.jit
def sum_buckets(
    x, order, offsets, signs, out, nonzeros, k, d, x_row, x_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    bucket = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    start = tl.load(offsets + bucket)
    end = tl.load(offsets + bucket + 1, bucket + 1 < k, other=nonzeros)
    total = tl.zeros([COLUMNS], WIDE)
    for first in range(start, end, ROWS):
        place = first + tl.arange(0, ROWS)
        row = tl.load(order + place, place < end, other=0).to(tl.int64)
        sign = tl.load(signs + place, place < end, other=0.0)
        inside = (place < end)[:, None] & (column < d)[None, :]
        tile = tl.load(
            x + row[:, None] * x_row + column[None, :].to(tl.int64) * x_column, inside, other=0.0
        )
        total += tl.sum(tile.to(WIDE) * sign[:, None].to(WIDE), 0)
    tl.store(out + bucket.to(tl.int64) * d + column, total, column < d)


@triton.jit(do_not_specialize=["seed"])
def multiply_normals(
    seed,
    x,
    out,
    n,
    k,
    d,
    x_row,
    x_column,
    scale,
    K: tl.constexpr,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    entry, column = tl.program_id(0) * K + tl.arange(0, K), tl.program_id(1) * D + tl.arange(0, D)
    lane = tl.arange(0, LANES)
    total = tl.zeros([K, D], tl.float32)
    for first in range(0, n, 4 * LANES):
        a, b, c, e = tl.philox(
            seed.to(tl.int64), (lane + first // 4)[None, :], entry[:, None], NORMALS, 0
        )
        a, b = normal_pair(a, b)
        c, e = normal_pair(c, e)
        total = accumulate(total, a, x, lane + first, column, n, d, x_row, x_column, PRECISION)
        total = accumulate(
            total, b, x, lane + first + LANES, column, n, d, x_row, x_column, PRECISION
        )
        total = accumulate(
            total, c, x, lane + first + 2 * LANES, column, n, d, x_row, x_column, PRECISION
        )
        total = accumulate(
            total, e, x, lane + first + 3 * LANES, column, n, d, x_row, x_column, PRECISION
        )
    store_tile(out, total * scale, entry, column, k, d)


@triton.jit
def normal_pair(a, b):
    radius = tl.sqrt(-2.0 * tl.log(((a >> 8) + 1).to(tl.float32) * 5.9604644775390625e-08))
    angle = uniform(b) * 6.283185307179586
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def uniform(word):
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-08  # 2⁻²⁴


@triton.jit(do_not_specialize=["seed"])
def multiply_signs(
    seed,
    x,
    out,
    n,
    k,
    d,
    x_row,
    x_column,
    scale,
    K: tl.constexpr,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    entry, column = tl.program_id(0) * K + tl.arange(0, K), tl.program_id(1) * D + tl.arange(0, D)
    lane = tl.arange(0, LANES)
    total = tl.zeros([K, D], tl.float32)
    for first in range(0, n, 32 * LANES):
        word, _, _, _ = tl.philox(
            seed.to(tl.int64), (lane + first // 32)[None, :], entry[:, None], SIGN_MATRIX, 0
        )
        for bit in range(0, tl.minimum(32, tl.cdiv(n - first, LANES))):
            s = 1.0 - 2.0 * ((word >> bit) & 1).to(tl.float32)
            total = accumulate(
                total, s, x, lane + first + bit * LANES, column, n, d, x_row, x_column, PRECISION
            )
    store_tile(out, total * scale, entry, column, k, d)


@triton.jit
def accumulate(total, s, x, row, column, n, d, x_row, x_column, PRECISION: tl.constexpr):
    place = row.to(tl.int64)[:, None] * x_row + column.to(tl.int64)[None, :] * x_column
    tile = tl.load(x + place, (row < n)[:, None] & (column < d)[None, :], other=0.0)
    return tl.dot(s.to(tile.dtype), tile, total, input_precision=PRECISION)


@triton.jit
def store_tile(out, tile, row, column, rows, columns):
    place = row.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(out + place, tile, (row < rows)[:, None] & (column < columns)[None, :])


@triton.jit
def transform(
    x,
    out,
    n,
    d,
    x_row,
    x_column,
    done,
    FACTOR: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    program, place = tl.program_id(0), tl.arange(0, FACTOR)
    row = (program // done) * done * FACTOR + program % done + place * done
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    both = place[:, None] & place[None, :]
    both = both ^ (both >> 4)
    both = both ^ (both >> 2)
    sign = 1.0 - 2.0 * ((both ^ (both >> 1)) & 1).to(
        tl.float32
    )  # I ⊗ H ⊗ I, and H is the parity of i & j
    total = accumulate(
        tl.zeros([FACTOR, COLUMNS], tl.float32),
        sign,
        x,
        row,
        column,
        n,
        d,
        x_row,
        x_column,
        PRECISION,
    )
    store_tile(out, total, row, column, (program // done + 1) * done * FACTOR, d)


@triton.jit(do_not_specialize=["seed"])
def round_rows(
    seed,
    x,
    low,
    step,
    packed,
    p,
    width,
    group,
    groups,
    x_row,
    x_column,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    EACH: tl.constexpr = 8 // BITS
    FROM_ONE_CALL: tl.constexpr = 4 if EACH > 4 else EACH
    row = tl.program_id(0)
    byte = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    result = tl.zeros([BLOCK], tl.int32)
    for call in tl.static_range(0, EACH, 4):
        a, b, c, e = tl.philox(seed.to(tl.int64), byte, row, ROUNDING, call // 4)
        for place in tl.static_range(0, FROM_ONE_CALL):
            word = a if place == 0 else (b if place == 1 else (c if place == 2 else e))
            column = byte * EACH + call + place
            inside = column < p
            at = row.to(tl.int64) * groups + column // group
            least, each = (
                tl.load(low + at, inside, other=0.0),
                tl.load(step + at, inside, other=0.0),
            )
            value = tl.load(
                x + row.to(tl.int64) * x_row + column.to(tl.int64) * x_column, inside, other=0.0
            )
            steps = tl.div_rn(value.to(tl.float32) - least, tl.where(each == 0, 1.0, each))
            down = tl.floor(steps)
            level = tl.minimum(down + (uniform(word) < steps - down).to(tl.float32), 2.0**BITS - 1)
            result |= level.to(tl.int32) << (BITS * (call + place))
    tl.store(packed + row.to(tl.int64) * width + byte, result.to(tl.uint8), byte < width)


@triton.jit
def restore_rows(
    packed, low, step, out, p, width, group, groups, BITS: tl.constexpr, BLOCK: tl.constexpr
):
    EACH: tl.constexpr = 8 // BITS
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * width + column // EACH, column < p, other=0).to(tl.int32)
    level = (byte >> ((column % EACH) * BITS)) & (2**BITS - 1)
    at = row * groups + column // group
    least, each = (
        tl.load(low + at, column < p, other=0.0),
        tl.load(step + at, column < p, other=0.0),
    )
    tl.store(out + row * p + column, least + level.to(tl.float32) * each, column < p)
