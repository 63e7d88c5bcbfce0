"""The fast Walsh–Hadamard transform of the rows of a matrix."""

import torch
from jaxtyping import Float
from torch import Tensor

from estimators import counter

BLOCK = 5  # H is applied as a chain of 2⁵ × 2⁵ matrix products: few passes over memory, each at GEMM speed
TILE = 2**22  # bytes of X transformed together on a CPU, so that the passes after the first find them in cache


def hadamard(x: Float[Tensor, "n d"]) -> Float[Tensor, "N d"]:
    """H·X for the N × N Walsh–Hadamard matrix (entries ±1, natural order), X padded by zero rows to N = ``padded(n)``.

    H is not normalised: HᵀH = N·I. Takes N·d·Σ 2^b operations over blocks of b ≤ 5 bits, and works in the dtype of X.
    Source: Fino and Algazi 1976, https://doi.org/10.1109/TC.1976.1674569.
    """
    n, d = x.shape
    size, fast = padded(n), counter.kernels(x.device)
    if fast is not None and size >= 16 and x.dtype in fast.DTYPES:
        return fast.hadamard(x, size)
    width = max(d if x.is_cuda else TILE // (size * x.element_size()), 1)
    out = x.new_empty(size, d)
    for left in range(0, d, width):
        out[:, left : left + width] = transform(x[:, left : left + width], size)
    return out


def transform(x: Float[Tensor, "n d"], size: int) -> Float[Tensor, "size d"]:
    """``hadamard`` of one tile, padded to ``size`` rows."""
    n, d = x.shape
    if size > n:
        x = torch.cat([x, x.new_zeros(size - n, d)])
    done = 1
    while done < size:
        factor = min(2**BLOCK, size // done)
        x = matrix(factor, x.dtype, x.device) @ x.reshape(done, factor, -1)  # I ⊗ H_factor ⊗ I
        done *= factor
    return x.reshape(size, d)


def padded(n: int) -> int:
    """The least power of two that is at least n, and at least 1."""
    return 1 << max(n - 1, 0).bit_length()


def matrix(size: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "size size"]:
    """The Walsh–Hadamard matrix itself, for a power of two: H_ij = (−1)^popcount(i & j)."""
    h = torch.ones(1, 1, dtype=dtype, device=device)
    while h.shape[0] < size:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h
