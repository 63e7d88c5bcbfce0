"""StochasticRounding: keeps every entry of X, in few bits."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sketchvar.estimators.estimator import SEED_BYTES, Compressed, Estimator, Traits
from sketchvar.estimators.kernels import counter
from sketchvar.estimators.kernels.hadamard import matrix
from sketchvar.estimators.moments import CHUNK, Moments, wide
from sketchvar.estimators.seeds import Generator, generator

BITS = (1, 2, 4, 8)  # those that pack into bytes without a remainder


@dataclass(frozen=True)
class StochasticRounding(Estimator):
    """Keeps X rounded up or down at random to a grid of 2^bits values in each group of ``group``
    features of each row.

    The grid runs from the least to the largest value of the group (default: the whole row) in steps
    of Δ; an entry a fraction f of a step above a grid point goes up with probability f, so it is
    unbiased. A constant group is exact.
    ``rotate`` first mixes the features of each row by random signs and a Hadamard transform, so
    that one large entry does not coarsen the grid of all; in blocks of the largest power of two
    that divides p (not at all for odd p), and with the same signs every time: unbiased under any
    rotation, and the variance is exact under a fixed one.
    Variance: Σᵢ ‖yᵢ‖² Σⱼ Δ²f(1 − f). Bytes: n·p·bits/8, and the least value and Δ of each group in
    float32 (float64 for such an X). Time: 2npq, some reads of X and, with ``rotate``, a transform
    of X in each phase.
    Source: Chen et al. 2021 (ActNN), https://arxiv.org/abs/2104.14129; rotation: Xi et al. 2023,
    https://arxiv.org/abs/2306.11987.
    """

    bits: int
    group: int | None = None
    rotate: bool = False
    traits = Traits(needs_pair=True)

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or self.bits not in BITS:
            raise ValueError(
                "StochasticRounding needs bits of 1, 2, 4 or 8, which pack into bytes, got"
                f" bits={self.bits}"
            )
        if self.group is not None and self.group < 1:
            raise ValueError(
                "StochasticRounding needs group >= 1 features, or None for a whole row, got"
                f" group={self.group}"
            )

    def draw(self, n: int, p: int, seed: int, device: torch.device) -> Float[Tensor, "n p"]:
        """Uniform numbers in [0, 1), one per entry; an entry goes up where its fraction is
        larger.
        """
        return torch.rand(n, p, generator=generator(seed, device), device=device)

    def keep(self, x: Float[Tensor, "n p"], u: Float[Tensor, "n p"], seed: int) -> Compressed:
        """X rounded by ``u``: packed numbers of steps, and the least value and Δ of each group."""
        n, p = x.shape
        low, step, steps = self.grid(x)
        down = steps.floor()
        up = u.reshape(down.shape) < steps - down
        levels = (down + up).clamp_(max=2**self.bits - 1)
        packed = pack(levels.to(torch.uint8).reshape(n, p), self.bits)
        return Compressed(seed, (n, p), (packed, low, step))

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        (n, p), fast = x.shape, counter.kernels(x.device)
        if fast is None or x.dtype not in fast.DTYPES:
            return self.keep(x, self.draw(n, p, seed, x.device), seed)
        z = rotated(x) if self.rotate else x
        low, high = self.ends(z)
        step = self.step(low, high)
        return Compressed(
            seed, (n, p), (fast.round_and_pack(z, low, step, self.bits, seed), low, step)
        )

    def restore(self, kept: Compressed, dtype: torch.dtype) -> Float[Tensor, "n p"]:
        """The rounded X that ``kept`` stands for."""
        packed, low, step = kept.tensors
        (n, p), fast = kept.shape, counter.kernels(packed.device)
        if fast is not None and low.dtype == torch.float32:
            x = fast.unpack_and_scale(
                packed, low, step, self.bits, p, torch.float32 if self.rotate else dtype
            )
        else:
            levels = unpack(packed, self.bits, p).reshape(n, *self.groups(p))
            x = (low[:, :, None] + levels.to(low.dtype) * step[:, :, None]).reshape(n, p)
        return (unrotated(x) if self.rotate else x).to(dtype)

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        return self.restore(kept, y.dtype).T @ y

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        return m.y_sq @ self.expected_errors(m)

    def expected_errors(self, m: Moments) -> Float[Tensor, " n"]:
        """``row_errors`` of the pair's X, computed once however many closed forms need it."""

        def make() -> Tensor:
            x = m.pair[0]
            if self.rotate:
                return self.row_errors(x)
            return self.row_errors(x, m.once(("ends", self.group), lambda: self.ends(x)))

        return m.once(("errors", self), make)

    def row_errors(
        self, x: Float[Tensor, "n p"], ends: tuple[Tensor, Tensor] | None = None
    ) -> Float[Tensor, " n"]:
        """E‖x̂ᵢ − xᵢ‖² of each row, Σⱼ Δ²f(1 − f), in float64; ``ends`` of x, where they are known,
        save a pass.
        """
        errors = [x.new_zeros(0, dtype=torch.float64)]
        if self.rotate:
            plain = replace(self, rotate=False)
            return torch.cat(errors + [plain.row_errors(rotated(rows)) for rows in x.split(CHUNK)])
        low, high = ends or self.ends(x)
        step = self.step(low, high)
        for rows, least, delta in zip(
            x.split(CHUNK), low.split(CHUNK), step.split(CHUNK), strict=True
        ):
            f = self.steps(rows, least, delta).frac_()
            errors.append(
                (f.addcmul_(f, f, value=-1).sum(2) * delta.square()).sum(1, dtype=torch.float64)
            )
        return torch.cat(errors)

    def grid(
        self, x: Float[Tensor, "n p"]
    ) -> tuple[Tensor, Tensor, Float[Tensor, "n groups group"]]:
        """Least value and Δ of each group of each row (n × groups), and how many Δ each entry is
        above the least.
        """
        x = rotated(x) if self.rotate else x
        low, high = self.ends(x)
        step = self.step(low, high)
        return low, step, self.steps(x, low, step)

    def ends(
        self, x: Float[Tensor, "n p"]
    ) -> tuple[Float[Tensor, "n groups"], Float[Tensor, "n groups"]]:
        """Least and largest value of each group of each row, whatever the bits."""
        x = x.reshape(x.shape[0], *self.groups(x.shape[1]))
        return wide(x.amin(2)), wide(x.amax(2))  # together six times faster than aminmax on a CPU

    def step(
        self, low: Float[Tensor, "n groups"], high: Float[Tensor, "n groups"]
    ) -> Float[Tensor, "n groups"]:
        """Δ of each group, large enough to reach ``high``."""
        span, most = high - low, 2**self.bits - 1
        step = span / most
        return torch.where(
            step * most < span, step.nextafter(torch.full_like(step, torch.inf)), step
        )

    def steps(
        self, x: Float[Tensor, "n p"], low: Tensor, step: Tensor
    ) -> Float[Tensor, "n groups group"]:
        """How many Δ each entry is above the least of its group."""
        per_step = torch.where(step == 0, 1, step)  # a constant group: 0 steps of 0
        return (wide(x).reshape(len(x), *self.groups(x.shape[1])) - low[:, :, None]).div_(
            per_step[:, :, None]
        )

    def groups(self, p: int) -> tuple[int, int]:
        """How many groups a row of p features has, and their size. Raises ValueError unless
        ``group`` divides p.
        """
        group = self.group or max(p, 1)
        if p % group:
            raise ValueError(
                "StochasticRounding needs a group that divides the number of features, got"
                f" group={group} for p={p}; {max(d for d in range(1, group) if p % d == 0)}"
                " would do"
            )
        return p // group, group

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return SEED_BYTES + n * (
            -(-p * self.bits // 8) + 2 * self.groups(p)[0] * max(dtype.itemsize, 4)
        )


def pack(levels: UInt8[Tensor, "n p"], bits: int) -> UInt8[Tensor, "n bytes"]:
    """Numbers below 2^bits, 8/bits of them to a byte, the first in the lowest bits; a row starts a
    new byte.
    """
    each = 8 // bits
    n, p = levels.shape
    levels = torch.nn.functional.pad(levels, (0, -p % each)).reshape(n, -(-p // each), each)
    packed = levels[:, :, 0].clone()
    for i in range(1, each):
        packed |= levels[:, :, i] << (bits * i)
    return packed


def unpack(packed: UInt8[Tensor, "n bytes"], bits: int, p: int) -> UInt8[Tensor, "n p"]:
    """The p numbers of each row that were packed."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    return ((packed[:, :, None] >> shifts) & (2**bits - 1)).flatten(1)[:, :p]


def rotated(x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """Every row times the same random signs, then the orthonormal Hadamard transform of each block
    of features.
    """
    x = wide(x)
    return blockwise_hadamard(x * rotation_signs(x))


def unrotated(x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """The inverse of ``rotated``."""
    return blockwise_hadamard(x) * rotation_signs(x)


def rotation_signs(x: Float[Tensor, "n p"]) -> Float[Tensor, " p"]:
    """The same whatever the seed, and drawn on the CPU, so that every device rotates alike."""
    g = Generator()
    g.manual_seed(0)
    return g.signs(x.shape[1]).to(x)


def blockwise_hadamard(x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """The orthonormal transform of blocks of features, in place where they lie: no transpose,
    unlike ``hadamard``.
    """
    block = max(x.shape[1] & -x.shape[1], 1)  # the largest power of two that divides p
    done = min(block, 16)
    z = x.reshape(x.numel() // done, done) @ (matrix(done, x.dtype, x.device) * block**-0.5)
    while done < block:
        factor = min(block // done, 16)
        z = matrix(factor, x.dtype, x.device) @ z.reshape(
            x.numel() // (factor * done), factor, done
        )
        done *= factor
    return z.reshape(x.shape)
