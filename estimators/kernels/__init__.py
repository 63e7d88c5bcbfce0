"""The one door to what makes a draw or a product fast: every function here runs a GPU kernel, or
C++ on a CPU, where one serves, else PyTorch's own operators. Estimators ask for the result and
never for the device.

The plain paths are in ``buckets``, ``hadamard``, ``cosine``, ``rounding`` and ``grid``; the kernels
are in ``triton`` and ``compiled``, and take their random numbers from ``counter``.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sketchvar.estimators.grids import FORMATS, GRIDS, SCALES, least_scale, levels_of
from sketchvar.estimators.kernels import buckets, compiled, counter, hadamard, native, rounding
from sketchvar.estimators.kernels.buckets import Buckets, group_rows, split_buckets
from sketchvar.estimators.kernels.cosine import cosine_transform
from sketchvar.estimators.kernels.grid import cut_blocks, divide_blocks
from sketchvar.estimators.kernels.grid import restore as restore_grid
from sketchvar.estimators.kernels.grid import round_tiles as round_grid_tiles
from sketchvar.estimators.kernels.hadamard import blockwise_hadamard, next_power_of_two
from sketchvar.estimators.kernels.rounding import (
    count_steps,
    even_steps,
    find_ends,
    pack,
    unpack,
)
from sketchvar.estimators.norms import center, wide
from sketchvar.estimators.seeds import generator

__all__ = [
    "Buckets",
    "RandomMatrix",
    "blockwise_hadamard",
    "bucket_sums",
    "cosine_transform",
    "count_steps",
    "cut_blocks",
    "divide_blocks",
    "draw_normals",
    "draw_partition",
    "draw_signs",
    "even_steps",
    "find_ends",
    "find_native",
    "find_triton",
    "group_rows",
    "hadamard_transform",
    "largest_magnitudes",
    "multiply_codes",
    "next_power_of_two",
    "pack",
    "restore_from_grid",
    "round_evenly",
    "round_to_grid",
    "split_buckets",
    "unpack",
    "unpack_and_scale",
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # that the kernels take
LEAST_ROWS = 16  # of a matrix that a GPU's matrix units multiply


def find_triton(device: torch.device, dtype: torch.dtype = torch.float32) -> ModuleType | None:
    """The GPU kernels, where they serve: for these dtypes on a CUDA device with triton installed,
    if SKETCHVAR_KERNELS=on.

    They have to be asked for until they have been measured on a GPU; only Triton's interpreter and
    compiler saw them.
    """
    on = device.type == "cuda" and os.environ.get("SKETCHVAR_KERNELS") == "on"
    return load_triton() if on and dtype in DTYPES else None


@cache
def load_triton() -> ModuleType | None:
    """The module of the GPU kernels; None where triton is not installed."""
    if find_spec("triton") is None:
        return None
    from sketchvar.estimators.kernels import triton

    return triton


def find_native(device: torch.device, dtype: torch.dtype = torch.float32) -> ModuleType | None:
    """The functions in C++, where they serve: for what is worked in float32 on a CPU, if a compiler
    is there, unless SKETCHVAR_NATIVE=off.
    """
    serves = device.type == "cpu" and dtype in DTYPES
    return compiled if serves and native.is_on() else None


@dataclass(frozen=True)
class RandomMatrix:
    """S (n × k) = ``entries(n, k, seed, device)``/√k, made where it is used, on the device of what
    it multiplies: ``S.T @ x``.

    A GPU kernel makes it tile by tile as it multiplies, and never stores it.
    """

    entries: Callable[[int, int, int, torch.device], Tensor]
    n: int
    k: int
    seed: int

    @property
    def T(self) -> "Transposed":
        return Transposed(self)


@dataclass(frozen=True)
class Transposed:
    """Sᵀ of a ``RandomMatrix``, which is multiplied by."""

    matrix: RandomMatrix

    def __matmul__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        """SᵀX, in the dtype of X."""
        s, fast = self.matrix, find_triton(x.device, x.dtype)
        if fast is not None and s.entries in fast.PRODUCTS:
            return fast.product(s.entries, s.k, s.seed, x)
        entries = s.entries(s.n, s.k, s.seed, x.device).to(x.dtype)
        return (entries.T @ x) * max(s.k, 1) ** -0.5


def draw_normals(n: int, k: int, seed: int, device: torch.device) -> RandomMatrix:
    """An n × k matrix of independent N(0, 1/k)."""
    return RandomMatrix(counter.normals if find_triton(device) else normals, n, k, seed)


def normals(n: int, k: int, seed: int, device: torch.device) -> Float[Tensor, "n k"]:
    return generator(seed, device).normals(n, k)


def draw_signs(n: int, k: int, seed: int, device: torch.device) -> RandomMatrix:
    """An n × k matrix of independent ±1/√k, with equal probability."""
    return RandomMatrix(counter.sign_matrix if find_triton(device) else signs, n, k, seed)


def signs(n: int, k: int, seed: int, device: torch.device) -> Float[Tensor, "n k"]:
    return generator(seed, device).signs(n, k)


def draw_partition(n: int, k: int, seed: int, device: torch.device) -> Buckets:
    """A random partition of n rows, each with a random sign, into k buckets, sizes equal up to
    one.
    """
    fast = find_triton(device)
    if fast is not None:
        return Buckets(*fast.partition(n, k, seed, device))
    return buckets.draw_partition(n, k, generator(seed, device))


def bucket_sums(s: Buckets, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
    """The signed sum of the rows of x in each bucket."""
    fast = find_triton(x.device, x.dtype)
    if fast is not None:
        return fast.bucket_sums(*s, x)
    return buckets.bucket_sums(s, x)


def hadamard_transform(x: Float[Tensor, "n d"]) -> Float[Tensor, "N d"]:
    """H·X for the N × N Walsh–Hadamard matrix (entries ±1, natural order), X padded by zero rows to
    N = ``next_power_of_two(n)``. H is not normalised: HᵀH = N·I.
    """
    fast, size = find_triton(x.device, x.dtype), next_power_of_two(x.shape[0])
    if fast is not None and size >= LEAST_ROWS:
        return fast.hadamard(x, size)
    return hadamard.transform_rows(x)


def round_evenly(
    x: Float[Tensor, "n p"], group: int, bits: int, seed: int, mean: Tensor | None = None
) -> tuple[UInt8[Tensor, "n bytes"], Float[Tensor, "n groups"], Float[Tensor, "n groups"]]:
    """Every entry of x, less the ``mean`` row, as a number of steps above the least of its group,
    rounded up or down at random so that it is unbiased to 2⁻¹⁷ of a step, and packed into bytes;
    with the least of each group and its step.
    """
    native = find_native(x.device, x.dtype)
    if native is not None and (mean is None or x.dtype == torch.float32):
        return native.round_even(wide(x), group, bits, seed, mean)
    if mean is not None:
        x = center(x, mean)
    fast = find_triton(x.device, x.dtype)
    if fast is not None:
        low, step = rounding.even_steps(*rounding.find_ends(x, group), bits)
        return fast.round_and_pack(x, low, step, bits, seed), low, step
    return rounding.round_tiles(x, group, bits, generator(seed, x.device))


def largest_magnitudes(z: Float[Tensor, "n p"], block: int) -> Float[Tensor, "n blocks"]:
    """The largest magnitude of each block of each row."""
    native = find_native(z.device) if z.dtype == torch.float32 else None
    if native is not None:
        return native.largest_magnitudes(z, block)
    return cut_blocks(z, block).abs().amax(2)


def round_to_grid(
    z: Float[Tensor, "n p"], block: int, grid: str, scale: str, bits: int, seed: int
) -> tuple[Tensor, ...]:
    """The number of a value of the grid for every entry of z in units of its block's scale, one of
    its two neighbours at random so that it is unbiased to 2⁻¹⁷ of the gap, packed into bytes; and
    the scales as they are kept, the least at which nothing is beyond the grid.
    """
    native = find_native(z.device) if z.dtype == torch.float32 and grid in FORMATS else None
    if native is not None:
        return native.round_floating(z, block, grid, scale, bits, seed)
    need = least_scale(largest_magnitudes(z, block), GRIDS[grid].max().item())
    kept = SCALES[scale].write(need)
    each = SCALES[scale].read(*kept, dtype=z.dtype)
    return round_grid_tiles(z, each, block, grid, bits, generator(seed, z.device)), *kept


def restore_from_grid(
    packed: UInt8[Tensor, "n bytes"],
    kept: tuple[Tensor, ...],
    block: int,
    grid: str,
    scale: str,
    bits: int,
    p: int,
    dtype: torch.dtype,
) -> Float[Tensor, "n p"]:
    """value · scale in a dtype, from what ``round_to_grid`` gave for p features."""
    native = find_native(packed.device) if dtype == torch.float32 else None
    if native is not None and grid in FORMATS:
        return native.restore_floating(packed, kept, block, grid, scale, bits, p)
    each = SCALES[scale].read(*kept, dtype=dtype)
    if native is not None:
        values = levels_of(grid, dtype, packed.device)
        return native.restore_values(packed, values, each, block, bits, p)
    return restore_grid(packed, each, block, grid, bits, p)


def unpack_and_scale(
    packed: UInt8[Tensor, "n bytes"],
    low: Float[Tensor, "n groups"],
    step: Float[Tensor, "n groups"],
    bits: int,
    p: int,
    dtype: torch.dtype,
) -> Float[Tensor, "n p"]:
    """low + step · level, from what ``round_evenly`` gave for p features."""
    fast = find_triton(packed.device, low.dtype)
    if fast is not None:
        return fast.unpack_and_scale(packed, low, step, bits, p, dtype)
    native = find_native(low.device, low.dtype)
    if native is not None:
        return native.restore_even(packed, low, step, bits, p).to(dtype)
    return rounding.unpack_and_scale(packed, low, step, bits, p).to(dtype)


def multiply_codes(
    packed: UInt8[Tensor, "n bytes"],
    low: Float[Tensor, "n groups"],
    step: Float[Tensor, "n groups"],
    bits: int,
    p: int,
    y: Float[Tensor, "n q"],
    mean: Float[Tensor, " q"] | None,
    plain: Callable[[], Float[Tensor, "p q"]],
) -> Float[Tensor, "p q"]:
    """X̂ᵀ(Y − 1 ``mean``) for the X̂ of p features that ``round_evenly`` gave; as ``plain`` gives it
    where no kernel makes X̂ while it multiplies.
    """
    fast = find_triton(y.device, y.dtype)
    if fast is not None:
        return fast.multiply_codes(packed, low, step, bits, p, y, mean)
    return plain()
