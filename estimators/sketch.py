"""RowSketch (abstract): keeps SᵀX, with S drawn without looking at X."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from operator import index
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.blocks import BLOCK, pays_in_blocks
from sketchvar.estimators.estimator import (
    SEED_BYTES,
    Compressed,
    KeepsMatrix,
    TakesMean,
    as_tensors,
    check_rate,
    kept_count,
)
from sketchvar.estimators.norms import center

# how a sketch writes S down: a matrix, or a permutation and signs, or row numbers
Draw = TypeVar("Draw")


@dataclass(frozen=True)
class RowSketch(KeepsMatrix, TakesMean, Generic[Draw]):
    """Ĝ = (SᵀX)ᵀ(SᵀY) with a random S (n × k), E[SSᵀ] = I, k = max(1, round(rate · n)).

    Only SᵀX and the seed are kept; backward draws S again. Splitting ``draw``, the only random
    step, from ``apply``, which is deterministic and linear, lets tests enumerate every outcome. S
    is a function of (estimator, seed, n, device type): a draw for n rows is not the start of a draw
    for n + 1.
    """

    rate: float
    # (S, size) -> S in pieces of ``size`` rows of SᵀX, in order, where S can be cut: ``apply`` of
    # each piece gives those rows
    cut: ClassVar["staticmethod[[Any, int], Iterable[Any]] | None"] = None

    def __post_init__(self) -> None:
        check_rate(self, self.rate)

    @abstractmethod
    def draw(self, n: int, seed: int, device: torch.device) -> Draw:
        """S for n rows on a ``device``, in whatever form ``apply`` reads. Numbers are drawn in
        float32 and cast on use.
        """

    @abstractmethod
    def apply(self, s: Draw, x: Float[Tensor, "n d"]) -> Float[Tensor, "k d"]:
        """SᵀX (k × d) for a drawn ``s``, in the dtype of X; never a view of X."""

    def k(self, n: int) -> int:
        """The number of rows kept of n."""
        return kept_count(self.rate, n)

    def sketch(self, x: Tensor | np.ndarray, seed: int | np.integer) -> Tensor:
        """Sketch X (n × p) for other work: SᵀX (k × p) alone. E‖SᵀX‖² = ‖X‖², and with one
        ``seed`` for both E (SᵀX)ᵀSᵀY = XᵀY.

        >>> from sketchvar.estimators import CountSketch
        >>> x = torch.arange(8.0).reshape(4, 2)
        >>> CountSketch(0.5).sketch(x, seed=0).shape
        torch.Size([2, 2])

        NumPy arrays and integers are taken too. Raises ValueError unless X is a matrix.
        """
        (x,) = as_tensors(x)
        if x.ndim != 2:
            raise ValueError(
                f"sketch needs a matrix, n rows × p, got shape {tuple(x.shape)}; flatten the"
                " leading dimensions, as in x.flatten(0, -2)"
            )
        return self.compress(x, index(seed)).tensors[0]

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        return self.compress_about(x, seed, None)

    def compress_about(
        self, x: Float[Tensor, "n p"], seed: int, mean: Float[Tensor, " p"] | None
    ) -> Compressed:
        n, p = x.shape
        return Compressed(seed, (n, p), (self.apply_about(self.draw(n, seed, x.device), x, mean),))

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        return self.contract_about(kept, y, None)

    def contract_about(
        self, kept: Compressed, y: Float[Tensor, "n q"], mean: Float[Tensor, " q"] | None
    ) -> Float[Tensor, "p q"]:
        (sketched,) = kept.tensors
        s = self.draw(kept.shape[0], kept.seed, y.device)
        # Ĝᵀ is formed, not Ĝ: the layout of a layer's weight, which autograd then takes without a
        # copy
        if self.cut is None or not pays_in_blocks(y):
            return (self.apply_about(s, y, mean).T @ sketched).T
        g = y.new_zeros(y.shape[1], kept.shape[1])
        done = 0
        for block in self.cut(s, BLOCK):
            rows = self.apply_about(block, y, mean)
            g.addmm_(rows.T, sketched[done : done + rows.shape[0]])
            done += rows.shape[0]
        return g.T

    def apply_about(
        self, s: Draw, x: Float[Tensor, "n d"], mean: Float[Tensor, " d"] | None
    ) -> Float[Tensor, "k d"]:
        """Sᵀ(X − 1 ``mean``): where S has few nonzeros SᵀX less Sᵀ1 ``mean``, which costs k rows;
        else sums of many rows would cancel, and in narrow dtypes any.
        """
        if mean is None:
            return self.apply(s, x)
        if self.cut is None or x.element_size() < 4:
            return self.apply(s, center(x, mean))
        ones = self.apply(s, x.new_ones(x.shape[0], 1))
        return self.apply(s, x).addr_(ones[:, 0], mean, alpha=-1)

    def kept_shape(self, n: int, p: int) -> tuple[int, int]:
        return self.k(n), p

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return SEED_BYTES + self.k(n) * p * dtype.itemsize
