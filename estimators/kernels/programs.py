"""The programs that run on a GPU, each of which works on one tile; ``triton`` launches them."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import triton
import triton.language as tl

from sketchvar.estimators.kernels import counter

PERMUTATION, SIGNS = tl.constexpr(counter.PERMUTATION), tl.constexpr(counter.SIGNS)
NORMALS, SIGN_MATRIX = tl.constexpr(counter.NORMALS), tl.constexpr(counter.SIGN_MATRIX)
ROUNDING, MIXING = tl.constexpr(counter.ROUNDING), tl.constexpr(counter.MIXING)
LANES = tl.constexpr(counter.LANES)


@triton.jit(do_not_specialize=["seed"])
def draw_partition(seed, order, signs, offsets, n, k, side, BLOCK: tl.constexpr):
    slot = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = mix(seed, tl.where(slot < n, slot, 0).to(tl.uint32), side)
    while tl.max((row >= n).to(tl.int32), 0) > 0:
        row = tl.where(row >= n, mix(seed, row, side), row)
    word, _, _, _ = tl.philox(seed.to(tl.int64), slot, 0, SIGNS, 0)
    tl.store(order + slot, row.to(tl.int32), slot < n)
    tl.store(signs + slot, 1.0 - 2.0 * (word & 1).to(tl.float32), slot < n)
    tl.store(offsets + slot, slot * (n // k) + tl.minimum(slot, n % k), slot < k)


@triton.jit
def mix(seed, row, side):
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
    seed, x, out, n, k, d, x_row, x_column, scale,
    K: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    entry, column = tl.program_id(0) * K + tl.arange(0, K), tl.program_id(1) * D + tl.arange(0, D)
    lane = tl.arange(0, LANES)
    total = tl.zeros([K, D], tl.float32)
    for first in range(0, n, 4 * LANES):
        a, b, c, e = tl.philox(
            seed.to(tl.int64), (lane + first // 4)[None, :], entry[:, None], NORMALS, 0
        )
        a, b = normal_pair(a, b)
        c, e = normal_pair(c, e)
        row = lane + first
        total = accumulate(total, a, x, row, column, n, d, x_row, x_column, PRECISION)
        row += LANES
        total = accumulate(total, b, x, row, column, n, d, x_row, x_column, PRECISION)
        row += LANES
        total = accumulate(total, c, x, row, column, n, d, x_row, x_column, PRECISION)
        row += LANES
        total = accumulate(total, e, x, row, column, n, d, x_row, x_column, PRECISION)
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
    seed, x, out, n, k, d, x_row, x_column, scale,
    K: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
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
    x, out, n, d, x_row, x_column, done,
    FACTOR: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    program, place = tl.program_id(0), tl.arange(0, FACTOR)
    row = (program // done) * done * FACTOR + program % done + place * done
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    both = place[:, None] & place[None, :]
    # one factor of H, entry (−1)^(parity of i & j) by folding the bits of i & j onto the lowest
    both = both ^ (both >> 4)
    both = both ^ (both >> 2)
    sign = 1.0 - 2.0 * ((both ^ (both >> 1)) & 1).to(tl.float32)
    total = tl.zeros([FACTOR, COLUMNS], tl.float32)
    total = accumulate(total, sign, x, row, column, n, d, x_row, x_column, PRECISION)
    store_tile(out, total, row, column, (program // done + 1) * done * FACTOR, d)


@triton.jit(do_not_specialize=["seed"])
def round_rows(
    seed, x, low, step, packed, p, width, group, groups, x_row, x_column,
    BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    EACH: tl.constexpr = 8 // BITS
    row = tl.program_id(0)
    call = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # eight numbers, BITS bytes
    a, b, c, e = tl.philox(seed.to(tl.int64), call, row, ROUNDING, 0)
    result = tl.zeros([BLOCK], tl.int32)
    for number in tl.static_range(0, 8):
        word = a if number < 2 else (b if number < 4 else (c if number < 6 else e))
        half = (word >> (16 * (number % 2))) & 0xFFFF
        column = call * 8 + number
        inside = column < p
        at = row.to(tl.int64) * groups + column // group
        least = tl.load(low + at, inside, other=0.0)
        each = tl.load(step + at, inside, other=0.0)
        place_of_x = row.to(tl.int64) * x_row + column.to(tl.int64) * x_column
        value = tl.load(x + place_of_x, inside, other=0.0)
        steps = tl.div_rn(value.to(tl.float32) - least, tl.where(each == 0, 1.0, each))
        down = tl.floor(steps)
        chance = (half.to(tl.float32) + 0.5) * 1.52587890625e-05  # 2⁻¹⁶
        level = tl.minimum(down + (chance < steps - down).to(tl.float32), 2.0**BITS - 1)
        result |= level.to(tl.int32) << (BITS * (number % EACH))
        if number % EACH == EACH - 1:
            byte = call * BITS + number // EACH
            place = packed + row.to(tl.int64) * width + byte
            tl.store(place, result.to(tl.uint8), byte < width)
            result = tl.zeros([BLOCK], tl.int32)


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
    least = tl.load(low + at, column < p, other=0.0)
    each = tl.load(step + at, column < p, other=0.0)
    tl.store(out + row * p + column, least + level.to(tl.float32) * each, column < p)


@triton.jit
def multiply_codes(
    packed, low, step, y, mean, out, n, p, q, width, group, groups, y_row, y_column,
    BITS: tl.constexpr, CENTER: tl.constexpr, TWICE: tl.constexpr, ROWS: tl.constexpr,
    P: tl.constexpr, Q: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    EACH: tl.constexpr = 8 // BITS
    column, output = tl.program_id(0) * P + tl.arange(0, P), tl.program_id(1) * Q + tl.arange(0, Q)
    total = tl.zeros([Q, P], tl.float32)
    for first in range(0, n, ROWS):
        row = (first + tl.arange(0, ROWS)).to(tl.int64)
        inside = (row < n)[:, None] & (column < p)[None, :]
        place = row[:, None] * width + (column // EACH)[None, :]
        byte = tl.load(packed + place, inside, other=0).to(tl.int32)
        level = (byte >> ((column % EACH) * BITS)[None, :]) & (2**BITS - 1)
        at = row[:, None] * groups + (column // group)[None, :]
        least = tl.load(low + at, inside, other=0.0)
        x = least + level.to(tl.float32) * tl.load(step + at, inside, other=0.0)
        seen = (output < q)[:, None] & (row < n)[None, :]
        place = output.to(tl.int64)[:, None] * y_column + row[None, :] * y_row
        tile = tl.load(y + place, seen, other=0.0)
        if CENTER:
            off = tl.load(mean + output, output < q, other=0.0)[:, None]
            tile = tl.where(seen, tile.to(tl.float32) - off, 0.0).to(tile.dtype)
        near = x.to(tile.dtype)
        total = tl.dot(tile, near, total, input_precision=PRECISION)
        if TWICE:
            rest = (x - near.to(tl.float32)).to(tile.dtype)
            total = tl.dot(tile, rest, total, input_precision=PRECISION)
    store_tile(out, total, output, column, q, p)
