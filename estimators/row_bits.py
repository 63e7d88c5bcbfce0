"""RowBits: rounds rows that matter more in more bits."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sketchvar.estimators.estimator import SEED_BYTES, Compressed, Estimator, Traits
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.norms import wide
from sketchvar.estimators.quantize import BITS, StochasticRounding
from sketchvar.estimators.sampling import match_rows
from sketchvar.estimators.seeds import fold

STEPS = [(2**b - 1) ** -2 for b in BITS]  # what a row's error falls with


@dataclass(frozen=True, eq=False)
class RowBits(Estimator):
    """Keeps every row rounded at random as ``StochasticRounding`` does, in 1, 2, 4 or 8 bits:
    ``bits`` in the mean, more for rows of wide range that ``scores`` say will meet a large row of
    Y.

    ``scores`` (n) predict ‖yᵢ‖; without them all are alike, and ranges decide. The bits make
    Σ sᵢ²(maxⱼ xᵢⱼ − minⱼ xᵢⱼ)²/(2^bᵢ − 1)² least, all but the last few: bit by bit to the row that
    gains most. Unbiased whatever the scores; a row is never left out. ``kept_bytes`` is the most.
    Variance: Σᵢ ‖yᵢ‖² Σⱼ Δ²f(1 − f), Δ that of the row's bits. Bytes: n·p·bits/8, and 1 byte and
    two numbers in float32 for each row. Time: 2npq, a sort of n and some reads of X.
    Use: where rows vary much in range, or in how large a row of Y they will meet.
    Raises: ValueError unless 1 <= bits <= 8 and the scores are one for each row, none below zero.
    Source: Chen et al. 2021 (ActNN), https://arxiv.org/abs/2104.14129, §4.2, whose rows are
    examples.
    """

    bits: int
    scores: Float[Tensor, " n"] | None = None
    traits = Traits(needs_pair=True, basis_matters=True, varying_size=True)

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not 1 <= self.bits <= 8:
            raise ValueError(f"RowBits needs 1 to 8 bits in the mean, got bits={self.bits}")
        s = self.scores
        if s is not None and (s.ndim != 1 or not bool((s >= 0).all())):
            raise ValueError(
                f"RowBits needs one score >= 0 per row, got shape {tuple(s.shape)}, least"
                f" {s.min().item() if s.numel() else None}"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RowBits) or self.bits != other.bits:
            return False
        a, b = self.scores, other.scores
        return a is b or (a is not None and b is not None and torch.equal(a, b))

    def __hash__(self) -> int:
        return hash((RowBits, self.bits, self.scores is None))

    def allocate(self, x: Float[Tensor, "n p"]) -> UInt8[Tensor, " n"]:
        """The place in ``BITS`` of each row's bits.

        What a row gains by each bit falls from step to step, so that the largest gains come first,
        and each row's in order.
        """
        n = x.shape[0]
        if not x.numel():
            return torch.zeros(n, dtype=torch.uint8, device=x.device)
        worth = (wide(x.amax(1)) - wide(x.amin(1))).double()
        if self.scores is not None:
            worth = worth * match_rows(self, self.scores, worth)
        cost = torch.tensor(BITS, dtype=torch.float64, device=x.device).diff()
        gain = -torch.tensor(STEPS, dtype=torch.float64, device=x.device).diff() / cost
        order = (gain[:, None] * worth.square()).flatten().argsort(descending=True, stable=True)
        taken = cost.repeat_interleave(n)[order].cumsum(0) <= n * (self.bits - 1)
        more = torch.zeros_like(taken).index_copy_(0, order, taken)
        return more.view(len(cost), n).sum(0).to(torch.uint8)

    def groups(self, levels: UInt8[Tensor, " n"]) -> Iterator[tuple[StochasticRounding, Tensor]]:
        """For each number of bits, the estimator and the numbers of its rows, by the ``levels``
        that ``allocate`` gives.
        """
        for place, bits in enumerate(BITS):
            yield StochasticRounding(bits), (levels == place).nonzero()[:, 0]

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        kept = [self.allocate(x)]
        for rounding, rows in self.groups(kept[0]):
            kept += rounding.compress(x[rows], fold(seed, rounding.bits)).tensors
        return Compressed(seed, (x.shape[0], x.shape[1]), tuple(kept))

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        levels, *tensors = kept.tensors
        total = y.new_zeros(kept.shape[1], y.shape[1])
        for i, (rounding, rows) in enumerate(self.groups(levels)):
            part = Compressed(0, (len(rows), kept.shape[1]), tuple(tensors[3 * i : 3 * i + 3]))
            total = total + rounding.contract(part, y[rows])
        return total

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        x = m.pair[0]
        errors = torch.zeros_like(x)
        for rounding, rows in self.groups(self.allocate(x)):
            errors[rows] = rounding.errors(x[rows])
        return m.weigh(errors).sum()

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return SEED_BYTES + n * (-(-p * self.bits // 8) + 1 + 2 * max(dtype.itemsize, 4))
