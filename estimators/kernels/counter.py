"""Counter-based random numbers: each from the seed and its place alone, so that a kernel makes them
as it goes.

Philox 4×32 with ten rounds: Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405. Here in
plain PyTorch, on any device; ``triton.py`` makes the same numbers in its kernels.
"""

import math

import torch
from jaxtyping import Float, Int, UInt16
from torch import Tensor

# what a number is for: the counter's third word
PERMUTATION, SIGNS, NORMALS, SIGN_MATRIX, ROUNDING = range(5)
# Feistel rounds: the chance that two rows meet is then right to 2 parts in 10⁴, in 10⁶ from 1000
# rows
MIXING = 12
LANES = 32  # rows of S that one step of a product takes
WORD = 2**32 - 1


def philox(
    seed: int | Tensor, first: Int[Tensor, "..."], second: Tensor | int, stream: int, call: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four independent 32-bit numbers (as int64) for each counter (first, second, stream, call),
    which broadcast.

    ``seed`` is below 2⁶³; a tensor of seeds broadcasts too.
    """
    low, high = seed & WORD, seed >> 32
    a, b, c, d = first.long(), second, stream, call
    for _ in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57  # modulo 2⁶⁴; of b and d 32 bits count
        first, third = ((right >> 32) ^ b ^ low) & WORD, ((left >> 32) ^ d ^ high) & WORD  # type: ignore[assignment]
        a, b, c, d = first, right, third, left  # type: ignore[assignment]
        low, high = (low + 0x9E3779B9) & WORD, (high + 0xBB67AE85) & WORD
    return a, b & WORD, c, d & WORD  # type: ignore[return-value]


def permutation(n: int, seed: int | Tensor, device: torch.device) -> Int[Tensor, "*seeds n"]:
    """A random order of n < 2³¹ rows, each place of which can be had without the others.

    A Feistel network over pairs below ``side(n)``, walked until it comes out below n (Black and
    Rogaway 2002, https://doi.org/10.1007/3-540-45760-7_9). ``seed`` may be a column of seeds.
    """
    rows = torch.arange(n, device=device)
    rows = mix(rows, n, seed)
    while (outside := rows >= n).any():
        rows = torch.where(outside, mix(rows, n, seed), rows)
    return rows


def mix(rows: Int[Tensor, "..."], n: int, seed: int | Tensor) -> Int[Tensor, "..."]:
    """The network once: a permutation of the numbers below ``side(n)``²."""
    size = side(n)
    high, low = rows // size, rows % size
    for call in range(0, MIXING, 2):
        high = (high + (philox(seed, low, 0, PERMUTATION, call)[0] * size >> 32)) % size
        low = (low + (philox(seed, high, 0, PERMUTATION, call + 1)[0] * size >> 32)) % size
    return high * size + low


def side(n: int) -> int:
    """Least s with s² ≥ n, at least 8: fewer numbers would mix badly."""
    return max(8, math.isqrt(max(n - 1, 0)) + 1)


def row_signs(n: int, seed: int | Tensor, device: torch.device) -> Float[Tensor, "*seeds n"]:
    """±1 for each of n rows, float32."""
    return 1 - 2 * (philox(seed, torch.arange(n, device=device), 0, SIGNS)[0] & 1).float()


def normals(n: int, k: int, seed: int, device: torch.device) -> Float[Tensor, "n k"]:
    """Independent N(0, 1) in float32, by Box and Muller from 24 bits each, so at most 5.8.

    Rows 128g + 32w + l for w = 0..3 share a call, so that the four numbers it gives go to different
    products of tiles.
    """
    rows, columns = torch.arange(n, device=device), torch.arange(k, device=device)
    counters = rows // (4 * LANES) * LANES + rows % LANES
    a, b, c, d = philox(seed, counters[:, None], columns, NORMALS)
    words = torch.stack([*normal_pair(a, b), *normal_pair(c, d)])
    return words[rows // LANES % 4, rows]


def normal_pair(a: Int[Tensor, "..."], b: Int[Tensor, "..."]) -> tuple[Tensor, Tensor]:
    """Two normals from two words."""
    radius = (-2 * ((a >> 8) + 1).float().mul_(2**-24).log()).sqrt()
    angle = uniform(b) * (2 * math.pi)
    return radius * angle.cos(), radius * angle.sin()


def sign_matrix(n: int, k: int, seed: int, device: torch.device) -> Float[Tensor, "n k"]:
    """Independent ±1 in float32. Rows 1024g + 32w + l share a call: they are bits w = 0..31 of its
    first word.
    """
    rows, columns = torch.arange(n, device=device), torch.arange(k, device=device)
    counters = rows // (32 * LANES) * LANES + rows % LANES
    word = philox(seed, counters[:, None], columns, SIGN_MATRIX)[0]
    return 1 - 2 * (word >> (rows // LANES % 32)[:, None] & 1).float()


def uniforms(
    n: int, p: int, seed: int, device: torch.device, first: int = 0
) -> Float[Tensor, "n p"]:
    """(k + ½)/2¹⁶ for independent uniform k < 2¹⁶, float32, by which rows ``first`` to ``first`` +
    n are rounded; so a probability is right to 2⁻¹⁷. Eight neighbours in a row share a call.
    """
    calls = torch.arange(-(-p // 8), device=device)
    rows = torch.arange(first, first + n, device=device)[:, None]
    words = torch.stack(philox(seed, calls, rows, ROUNDING), 2).to(torch.int32)
    return to_unit(words.view(torch.uint16).reshape(n, 8 * len(calls))[:, :p])  # lower halves first


def to_unit(halves: UInt16[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """16 bits to the middle of their part of [0, 1)."""
    return halves.float().add_(0.5).mul_(2**-16)


def uniform(word: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The upper 24 bits of a word as a fraction, float32."""
    return (word >> 8).float() * 2**-24
