"""GridRounding: keeps every entry of X on a grid of few values, as 4- and 8-bit floating formats
do.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.blocks import contract_rows
from sketchvar.estimators.estimator import SEED_BYTES, Compressed, TakesMean, Traits
from sketchvar.estimators.grids import (
    GRIDS,
    SCALES,
    goes_up_to_nearest,
    least_scale,
    levels_of,
    locate,
)
from sketchvar.estimators.kernels import (
    blockwise_hadamard,
    divide_blocks,
    largest_magnitudes,
    pack,
    restore_from_grid,
    round_to_grid,
)
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.norms import center, wide
from sketchvar.estimators.seeds import Generator

AXES = ("features", "tokens")


@dataclass(frozen=True)
class GridRounding(TakesMean):
    """Keeps X rounded up or down at random to the values of a ``grid``, times a scale for each
    ``block`` of entries along an ``axis``.

    An entry between neighbours a ≤ x ≤ b goes to b with probability (x − a)/(b − a), to 2⁻¹⁷, so it
    is unbiased; the scale is rounded up, so that nothing lies beyond the grid. Grids: ``e2m1``,
    ``e4m3``, ``e5m2``, ``log2`` (powers of two, and zero or the least at random below it: LUQ),
    ``nf4``. Scales: ``float``, ``power`` of two, or ``e4m3`` of one unit for all of X. So ``nvfp4``
    is e2m1 in blocks of 16 with scales in e4m3, ``mxfp4`` in blocks of 32 with powers of two,
    ``fp8`` e4m3 with a float for each row. A block (default: all of a row or column) that goes
    beyond the end is filled up by zeros, as for kernels, which take whole blocks; they change no
    other entry, and are not kept.
    ``rotate`` first mixes that many neighbours along the axis by signs, the same every time, and a
    Hadamard transform; along tokens those of Y are mixed alike. ``nearest`` rounds to the nearest
    value instead, of a tie to the even one: biased, the same every time.
    Variance: Σᵢ ‖yᵢ‖² Σⱼ (xᵢⱼ − aᵢⱼ)(bᵢⱼ − xᵢⱼ), of the rotated pair; with ``nearest`` it is all
    bias, ‖(X̃ − X)ᵀY‖². Bytes: n·p·4/8, or 8/8, and the scales. Time: 2npq, a search in the grid.
    Use: to see what FP8 or FP4 adds; for memory alone StochasticRounding.
    Raises: ValueError for a grid, scale or axis that there is not, a block below 1, and a
    ``rotate`` that is no power of two; ``compress`` for what the scales cannot reach.
    Source: NVIDIA 2025, https://arxiv.org/abs/2509.25149 (NVFP4); Rouhani et al. 2023,
    https://arxiv.org/abs/2310.10537 (MX); Chmiel et al. 2021, https://arxiv.org/abs/2112.10769
    (LUQ); Dettmers et al. 2023, https://arxiv.org/abs/2305.14314 (NF4).
    """

    grid: str
    block: int | None = None
    scale: str = "float"
    axis: str = "features"
    rotate: int | None = None
    nearest: bool = False

    def __post_init__(self) -> None:
        for field, known in (("grid", GRIDS), ("scale", SCALES), ("axis", AXES)):
            given = getattr(self, field)
            if given not in known:
                raise ValueError(
                    f"GridRounding needs a {field} of {', '.join(known)}, got {field}={given!r}"
                )
        if self.block is not None and self.block < 1:
            raise ValueError(
                "GridRounding needs block >= 1 entries, or None for a whole row, got"
                f" block={self.block}"
            )
        if self.rotate is not None and (self.rotate < 2 or self.rotate & (self.rotate - 1)):
            raise ValueError(
                f"GridRounding needs to rotate 2, 4, 8, 16, ... entries, got rotate={self.rotate}"
            )

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """Biased where it rounds to the nearest; the closed form needs the pair."""
        return Traits(
            biased=self.nearest,
            needs_pair=True,
            slow_form=True,
            basis_matters=True,
            order_matters=self.axis == "tokens",
        )

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        z, shape = self.turn(x), (x.shape[0], x.shape[1])
        if not self.nearest:
            if not self.reaches_all(z.dtype):
                self.need(z)  # raises
            size = self.size(z.shape[1])
            rounded = round_to_grid(z, size, self.grid, self.scale, self.bits, seed)
            return Compressed(seed, shape, rounded)
        kept, levels = (
            SCALES[self.scale].write(self.need(z)),
            levels_of(self.grid, z.dtype, z.device),
        )
        down, above, below = locate(self.scaled(z, kept), levels)
        codes = (down + goes_up_to_nearest(down, above, below, levels)).to(torch.uint8)
        packed = pack(codes.flatten(1)[:, : z.shape[1]], self.bits)
        return Compressed(seed, shape, (packed, *kept))

    def restore(self, kept: Compressed, dtype: torch.dtype) -> Float[Tensor, "n p"]:
        """The rounded X that ``kept`` stands for."""
        packed, *scales = kept.tensors
        worked = scales[-1].dtype if scales[-1].is_floating_point() else torch.float32
        worked = torch.promote_types(worked, dtype) if worked.itemsize < 8 else worked
        worked = worked if worked.itemsize >= 4 else torch.float32
        columns = kept.shape[1 if self.axis == "features" else 0]
        how = (self.size(columns), self.grid, self.scale, self.bits, columns, worked)
        z = restore_from_grid(packed, tuple(scales), *how)
        return self.turn_back(z).to(dtype)

    def parts(self, kept: Compressed, dtype: torch.dtype) -> list[Float[Tensor, "n p"]]:
        """Tensors of ``dtype`` that add up to the rounded X: one, as its values are further apart
        than those of bfloat16. Rounding it to them is a bias of 0.1 % of the variance at most
        (e4m3), of none where scales are powers of two.
        """
        return [self.restore(kept, dtype)]

    def compress_about(
        self, x: Float[Tensor, "n p"], seed: int, mean: Float[Tensor, " p"] | None
    ) -> Compressed:
        return self.compress(x if mean is None else center(x, mean), seed)

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        return self.contract_about(kept, y, None)

    def contract_about(
        self, kept: Compressed, y: Float[Tensor, "n q"], mean: Float[Tensor, " q"] | None
    ) -> Float[Tensor, "p q"]:
        p = kept.shape[1]
        whole = self.restore(kept, y.dtype) if self.axis == "tokens" else None

        def restore(rows: slice) -> list[Tensor]:
            if whole is not None:
                return [whole[rows]]
            some = tuple(t[rows] if t.ndim else t for t in kept.tensors)  # all share one unit
            return self.parts(Compressed(kept.seed, (some[0].shape[0], p), some), y.dtype)

        return contract_rows(restore, p, y, mean)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        if self.nearest:
            return self.bias_sq(m)
        x, y = m.pair
        mixed = self.mixed(y) if self.mixes_tokens else None
        return m.weigh(self.errors(x), self.basis(x), mixed).sum()

    def bias_sq(self, m: Moments) -> Float[Tensor, ""]:
        """‖E Ĝ − G‖²_F: of rounding to the nearest ‖(X̃ − X)ᵀY‖², else zero."""
        if not self.nearest:
            return torch.zeros_like(m.D)
        x, y = m.pair
        return m.metric.norm_sq((self.restore(self.compress(x, 0), x.dtype) - x).T @ y)

    def errors(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        """The expected squared error of each entry, of those that are mixed where some are:
        (x − a)(b − x) at random, 0 for the nearest, which has no variance.
        """
        z = self.turn(x)
        if self.nearest:
            return z.new_zeros(x.shape)
        kept = SCALES[self.scale].write(self.need(z))
        scale = SCALES[self.scale].read(*kept, dtype=z.dtype)
        _, above, below = locate(self.scaled(z, kept), levels_of(self.grid, z.dtype, z.device))
        errors = (above * below * scale.square()[:, :, None]).flatten(1)[:, : z.shape[1]]
        return errors if self.axis == "features" else errors.T

    def basis(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "p p"] | None:
        """R where it is the features of XR that are rounded."""
        mixes = self.axis == "features" and self.rotate is not None
        return self.turn(torch.eye(x.shape[1]).to(x)) if mixes else None

    def mixed(self, y: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
        """Y with its rows as they are mixed along tokens."""
        return self.turn(y).T if self.mixes_tokens else y

    @property
    def mixes_tokens(self) -> bool:
        """Whether its errors are those of rows that several tokens are mixed in."""
        return self.axis == "tokens" and self.rotate is not None

    def turn(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "rows columns"]:
        """X in float32 or wider, mixed, with its axis from left to right."""
        z = wide(x) if self.axis == "features" else wide(x).T
        if self.rotate is None:
            return z
        return self.mix(z * mixing_signs(z.shape[1], z))

    def turn_back(self, z: Float[Tensor, "rows columns"]) -> Float[Tensor, "n p"]:
        """``turn`` of what, mixed, is ``z``: its inverse."""
        if self.rotate is not None:
            z = self.mix(z) * mixing_signs(z.shape[1], z)
        return z if self.axis == "features" else z.T

    def mix(self, z: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """The orthonormal Hadamard transform of each ``rotate`` neighbours of a row of ``z``.
        Raises ValueError for rows that they do not divide.
        """
        size = self.rotate or 1
        if z.shape[1] % size:
            raise ValueError(
                f"{self} mixes {size} {self.axis} at a time, got {z.shape[1]}; pad them, or rotate"
                f" {z.shape[1] & -z.shape[1]}"
            )
        return blockwise_hadamard(z.reshape(-1, size)).reshape(z.shape)

    def size(self, columns: int) -> int:
        """Entries of a block in a row of so many ``columns``."""
        return self.block or max(columns, 1)

    def need(self, z: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows blocks"]:
        """The least scale of each block of ``z`` at which nothing is beyond the grid. Raises
        ValueError where none is large enough; what is not finite shows in what is made of it.
        """
        end, most = GRIDS[self.grid].max().item(), SCALES[self.scale].most
        scale = least_scale(largest_magnitudes(z, self.size(z.shape[1])), end)
        if not self.reaches_all(z.dtype) and bool(((scale > most) & scale.isfinite()).any()):
            raise ValueError(
                f"{self} writes scales up to {most:.3g} and values up to {end:g} times that, got"
                f" {z[z.isfinite()].abs().max().item():.3g}; divide X, or take scale='float'"
            )
        return scale

    def reaches_all(self, dtype: torch.dtype) -> bool:
        """Whether a scale can be written for every number of a dtype."""
        end = GRIDS[self.grid].max().item()
        return torch.finfo(dtype).max / end <= SCALES[self.scale].most

    def scaled(
        self, z: Float[Tensor, "rows columns"], kept: tuple[Tensor, ...]
    ) -> Float[Tensor, "rows blocks block"]:
        """The entries of ``z`` in units of their scales."""
        scale = SCALES[self.scale].read(*kept, dtype=z.dtype)
        return divide_blocks(z, scale, self.size(z.shape[1]))

    @property
    def bits(self) -> int:
        """What a code takes: 4, or 8 where the grid has more than 16 values."""
        return 4 if len(GRIDS[self.grid]) <= 16 else 8

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        rows, columns = (n, p) if self.axis == "features" else (p, n)
        blocks = -(-columns // self.size(columns))
        form, each = SCALES[self.scale], max(dtype.itemsize, 4)
        codes = rows * -(-columns * self.bits // 8)
        return SEED_BYTES + codes + rows * blocks * form.bytes_each(each) + form.bytes_once(each)


def mixing_signs(count: int, like: Tensor) -> Float[Tensor, " count"]:
    """Signs that depend on their number alone, drawn on the CPU, so that X and Y, and every device,
    are mixed alike.
    """
    g = Generator()
    g.manual_seed(0)
    return g.signs(count).to(like)
