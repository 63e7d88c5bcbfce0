"""START HERE: an estimator of G = XᵀY in two phases, forward (sees X, keeps little) and backward
(sees Y).
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from numbers import Real
from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.moments import Moments

SEED_BYTES = 8


class Compressed(NamedTuple):
    """All that survives from forward to backward.

    ``seed`` is that of the draw; ``shape`` that of X, (n, p); ``tensors`` the payload and whatever
    else the backward phase cannot redraw.
    """

    seed: int
    shape: tuple[int, int]
    tensors: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes kept: the tensors and the seed."""
        return SEED_BYTES + sum(t.nbytes for t in self.tensors)

    def __repr__(self) -> str:
        kept = [f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in self.tensors]
        size = f"{self.nbytes} bytes of {self.shape}"
        return f"Compressed({size}: {', '.join(kept)}; seed={self.seed})"


class Traits(NamedTuple):
    """What a caller has to know of an estimator before trusting it with a task; false of most."""

    # E Ĝ ≠ G: ``variance`` is the mean squared error and ``bias_sq`` its bias part
    biased: bool = False
    # was told about Y in advance, so no layer can use it
    oracle: bool = False
    # keeps a random number of bytes: ``kept_bytes`` is the expected one
    varying_size: bool = False
    # the closed form needs X and Y themselves, not only row norms and C
    needs_pair: bool = False
    # its closed form takes longer than a product XᵀY, whatever else is computed from the Moments
    slow_form: bool = False
    # ``variance`` raises NotImplementedError: use ``empirical``
    no_closed_form: bool = False
    # leaves rows or features out without a look: what is not finite there does not show
    skips_unseen: bool = False
    # its error changes with the basis of the features, or with the order of the rows
    basis_matters: bool = False
    order_matters: bool = False
    # its closed form is a sum over rows, of each by itself, so that parts of X and Y can be summed
    row_by_row: bool = False


class Estimator(ABC):
    """A randomized estimator of G = XᵀY that does not keep X (n × p) until Y (n × q) is known.

    Concrete estimators are frozen dataclasses. Unless its card says otherwise an estimator is
    unbiased: E Ĝ = G. Both phases take NumPy's arrays and integers too. Those that take a ``rate``
    raise ValueError unless 0 < rate <= 1.
    """

    traits: Traits = Traits()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for phase in ("compress", "contract"):
            if phase in vars(cls):
                setattr(cls, phase, take_arrays(vars(cls)[phase]))

    @abstractmethod
    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        """Forward phase: everything that will be remembered of X (n × p). All that is random in it
        follows from ``seed``.
        """

    @abstractmethod
    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        """Backward phase: the estimate Ĝ (p × q) from what was ``kept`` of X and from Y (n × q), in
        the dtype of the payload.
        """

    @abstractmethod
    def variance(self, m: Moments) -> Float[Tensor, ""]:
        """Exact E‖Ĝ − G‖²_F, the total over entries, in float64, of the pair with the moments
        ``m``; never negative, although it is a difference.

        Raises NotImplementedError, naming ``empirical``, where no closed form is known.
        """

    @abstractmethod
    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        """``compress(x, seed).nbytes`` for an n × p input of this dtype, without the data.

        Where ``traits.varying_size`` it is the expected number, for an X with at least k rows that
        are not zero.
        """


class TakesMean(Estimator):
    """An estimator that takes a mean row off X, and off Y, as it goes: no centred copy is made.
    Either ``mean``, in float32 or wider, may be None, which is to take nothing off.
    """

    @abstractmethod
    def compress_about(
        self, x: Float[Tensor, "n p"], seed: int, mean: Float[Tensor, " p"] | None
    ) -> Compressed:
        """``compress`` of X − 1 ``mean``."""

    @abstractmethod
    def contract_about(
        self, kept: Compressed, y: Float[Tensor, "n q"], mean: Float[Tensor, " q"] | None
    ) -> Float[Tensor, "p q"]:
        """``contract`` with Y − 1 ``mean``."""


class KeepsMatrix(Estimator):
    """An estimator that keeps one matrix, ``tensors[0]``, in which ``contract`` is linear.

    So anything unbiased may be done to that matrix, and the estimate stays unbiased: see ``Then``.
    """

    @abstractmethod
    def kept_shape(self, n: int, p: int) -> tuple[int, int]:
        """Shape of that matrix for an n × p input; its dtype is that of X."""


class KeepsRows(KeepsMatrix):
    """An estimator whose matrix is rows of X, each times a weight: what rounding then adds has a
    closed form.
    """

    @abstractmethod
    def weights_sq(self, norms: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """E Σ w² for each row of X over the places that keep it, each as w·xᵢ in Ĝ = Σ w·xᵢyᵢᵀ.

        From the norms ‖xᵢ‖ in float64; may be infinite or NaN for a zero row.
        """


def write_call(estimator: Any) -> str:
    """The call that makes it, a class that it takes by its name alone: its ``repr``."""
    shown = [field.name for field in fields(estimator) if field.repr]
    given = [(name, getattr(estimator, name)) for name in shown]
    words = [f"{name}={v.__name__ if isinstance(v, type) else repr(v)}" for name, v in given]
    return f"{type(estimator).__name__}({', '.join(words)})"


def take_arrays(phase: Callable[..., Any]) -> Callable[..., Any]:
    """Have a phase take NumPy's arrays as tensors that share their memory, its integers as ints."""

    def taken(given: Any) -> Any:
        if isinstance(given, np.ndarray):
            return as_tensors(given)[0]
        return int(given) if isinstance(given, np.integer) else given

    @functools.wraps(phase)
    def run(self: Estimator, *args: Any, **kwargs: Any) -> Any:
        named = {name: taken(given) for name, given in kwargs.items()}
        return phase(self, *map(taken, args), **named)

    return run


def estimate(estimator: Estimator, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Estimate XᵀY (p × q) from X (n × p) and Y (n × q) by ``estimator``; the same seed gives the
    same estimate.

    >>> from sketchvar.estimators import Exact
    >>> estimate(Exact(), torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), seed=0)
    tensor([[1., 2.],
            [3., 4.]])

    NumPy arrays and integers are taken too; tensors that require a gradient are taken as numbers.
    Raises ValueError for shapes that do not fit, TypeError for tensors that are not of one floating
    dtype.
    """
    x, y = as_tensors(x, y)
    check_pair(x, y)
    return estimator.contract(estimator.compress(x, index(seed)), y)


def as_tensors(*given: Any) -> tuple[Tensor, ...]:
    """Arrays, as NumPy's, or tensors as tensors without a graph, which share their memory.

    Raises TypeError for what is neither.
    """
    try:
        return tuple(torch.as_tensor(each).detach() for each in given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"X and Y must be torch tensors or NumPy arrays of numbers ({error}); convert them, as"
            " in torch.tensor(x)"
        ) from None


def check_pair(x: Tensor, y: Tensor) -> None:
    """Raise ValueError or TypeError unless X and Y are two floating matrices with the same rows,
    dtype and device.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"X and Y must be matrices with the same number of rows, got shapes {tuple(x.shape)}"
            f" and {tuple(y.shape)}; flatten the leading dimensions first, as in x.flatten(0, -2)"
        )
    if not x.is_floating_point() or x.dtype != y.dtype:
        raise TypeError(
            f"X and Y must have one floating dtype, got {x.dtype} and {y.dtype}; convert them, as"
            " in x.float()"
        )
    if x.device != y.device:
        raise ValueError(
            f"X and Y must be on one device, got {x.device} and {y.device}; move them, as in"
            " y.to(x.device)"
        )


def check_rate(estimator: object, rate: float) -> None:
    """Raise ValueError unless 0 < rate <= 1; ``estimator`` is named in the message."""
    if not (isinstance(rate, Real) and math.isfinite(rate) and 0 < rate <= 1):
        raise ValueError(
            f"{type(estimator).__name__} needs 0 < rate <= 1, got rate={rate}; rate is the fraction"
            " of X that is kept"
        )


def kept_count(rate: float, size: int) -> int:
    """Count how many of ``size`` rows (or features) a rate keeps: max(1, round(rate · size)), and
    0 of 0.
    """
    return min(size, max(1, round(rate * size)))
