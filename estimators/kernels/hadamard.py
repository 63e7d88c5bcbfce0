"""The fast Walsh–Hadamard transform, of the rows of a matrix and of blocks of its features."""

import torch
from jaxtyping import Float
from torch import Tensor

# H is a chain of products with matrices of at most 2⁵ × 2⁵: few passes over memory, each at the
# speed of a matrix product
BLOCK = 5
TILE = 2**20  # bytes of one product on a CPU, which so writes what is still in the cache
FEATURES = 16  # the same for features, whose blocks are short: 2⁴ × 2⁴


def transform_rows(x: Float[Tensor, "n d"]) -> Float[Tensor, "N d"]:
    """H·X for X padded by zero rows to N = ``next_power_of_two(n)``.

    Takes N·d·Σ 2^b operations over blocks of b ≤ 5 bits, and works in the dtype of X.
    Source: Fino and Algazi 1976, https://doi.org/10.1109/TC.1976.1674569.
    """
    x = x.detach()  # products into memory of our own have no derivative, and need none
    n, d = x.shape
    size = next_power_of_two(n)
    if size > n:
        x = torch.cat([x, x.new_zeros(size - n, d)])
    out = x.new_empty(size, d)
    transform(x.contiguous(), out, hadamard_matrix(2**BLOCK, x.dtype, x.device))
    return out


def transform(
    x: Float[Tensor, "size d"], out: Float[Tensor, "size d"], h: Float[Tensor, "b b"]
) -> None:
    """Write H·X into ``out``, which may be X itself.

    H is the Kronecker product H_high ⊗ H_low, so each of its two factors is applied by itself: to
    rows that are far apart and to rows that are neighbours. Both are upper left corners of ``h``.
    """
    size, d = x.shape
    bits = size.bit_length() - 1
    passes = -(-bits // BLOCK)
    high = 2 ** (bits // max(passes, 2))
    low = size // high
    outer = h[:high, :high]
    if passes > 2:  # over all rows once, then over as many as stay in the cache
        width = low * d if x.is_cuda else max(TILE // (high * x.element_size()), 1)
        for columns, result in zip(
            x.view(high, -1).split(width, 1), out.view(high, -1).split(width, 1), strict=True
        ):
            if x is out:
                result.copy_(outer @ columns)
            else:
                torch.mm(outer, columns, out=result)
        for rows in out.view(high, low, d):
            transform(rows, rows, h)
    else:
        once = outer @ x.view(high, -1)
        inner = h[:low, :low].expand(high, low, low)
        torch.bmm(inner, once.view(high, low, d), out=out.view(high, low, d))


def blockwise_hadamard(x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """The orthonormal transform of each block of features, the largest power of two that divides p;
    its own inverse. In place where they lie: no transpose.
    """
    block = max(x.shape[1] & -x.shape[1], 1)
    done = min(block, FEATURES)
    h = hadamard_matrix(done, x.dtype, x.device) * block**-0.5
    z = x.reshape(x.numel() // done, done) @ h
    while done < block:
        factor = min(block // done, FEATURES)
        columns = z.reshape(x.numel() // (factor * done), factor, done)
        z = hadamard_matrix(factor, x.dtype, x.device) @ columns
        done *= factor
    return z.reshape(x.shape)


def next_power_of_two(n: int) -> int:
    """The least power of two that is at least n, and at least 1."""
    return 1 << max(n - 1, 0).bit_length()


def hadamard_matrix(
    size: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "size size"]:
    """The Walsh–Hadamard matrix itself, for a power of two: H_ij = (−1)^popcount(i & j)."""
    h = torch.ones(1, 1, dtype=dtype, device=device)
    while h.shape[0] < size:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h
