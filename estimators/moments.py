"""Moments: all that a closed form may know about a pair (X, Y)."""

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 256  # rows at a time where a copy is made: it stays in the cache

T = TypeVar("T")


class UnknownStatistic(ValueError):
    """Moments were asked for what they were made without."""


class Moments:
    """Statistics of X (n × p) and Y (n × q), G = XᵀY, in float64. What is not asked for is not
    computed.

    ``x_sq`` and ``y_sq`` hold ‖xᵢ‖² and ‖yᵢ‖², one per row. Formulas use the letters of the
    literature:

        Q = ‖X‖²_F ‖Y‖²_F    C = ‖G‖²_F    D = Σᵢ ‖xᵢ‖²‖yᵢ‖²    L = Σᵢ ‖xᵢ‖‖yᵢ‖    alpha = C / Q

    Build one with ``Moments.of(x, y)``, or from row norms and C where the pair itself is gone (a
    probe's case). A statistic that one estimator alone needs stands with that estimator and is
    kept here by ``once``.
    """

    def __init__(
        self,
        p: int,
        q: int,
        x_sq: Float[Tensor, " n"],
        y_sq: Float[Tensor, " n"],
        C: Float[Tensor, ""] | None = None,
        pair: tuple[Tensor, Tensor] | Callable[[], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        if x_sq.shape != y_sq.shape or x_sq.ndim != 1:
            raise ValueError(
                f"x_sq and y_sq need one entry per row, got {tuple(x_sq.shape)} and"
                f" {tuple(y_sq.shape)}"
            )
        if C is None and pair is None:
            raise ValueError(
                "Moments needs C = ‖XᵀY‖² or the pair (X, Y) to compute it from, got neither"
            )
        self.n, self.p, self.q = x_sq.shape[0], p, q
        self.x_sq, self.y_sq = x_sq.double(), y_sq.double()
        self._pair = pair
        self._once: dict[Hashable, Any] = {}
        if C is not None:
            self.C = C.double()  # takes the place of the cached property

    @classmethod
    def of(cls, x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> "Moments":
        """Build the moments of a pair, which is kept (by reference) for the statistics that need
        all of it. NumPy arrays are taken too.

        >>> m = Moments.of(torch.eye(2), torch.ones(2, 3))
        >>> print(f"Q = {m.Q:g}, C = {m.C:g}, D = {m.D:g}, alpha = {m.alpha:g}")
        Q = 12, C = 6, D = 6, alpha = 0.5
        """
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        return cls(x.shape[1], y.shape[1], row_sq(x), row_sq(y), pair=(x, y))

    @classmethod
    def of_sums(
        cls,
        n: int,
        p: int,
        q: int,
        Q: Float[Tensor, "*some"],
        C: Float[Tensor, "*some"],
        D: Float[Tensor, "*some"],
    ) -> "Moments":
        """Build moments of any number of pairs at once, of which no more is known than this; what
        else a closed form asks for raises UnknownStatistic.
        """
        m = cls.__new__(cls)
        m.n, m.p, m.q, m._pair, m._once = n, p, q, None, {}
        m.Q, m.C, m.D = Q, C, D
        return m

    def __getattr__(self, name: str) -> Any:
        if name in ("x_sq", "y_sq"):
            raise UnknownStatistic(
                f"these moments hold Q, C and D only, and not {name} of each row"
            )
        raise AttributeError(f"Moments has no attribute {name!r}")

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """(X, Y) in at least float32. Raises ValueError for moments that were made without the
        pair.
        """
        if self._pair is None:
            raise UnknownStatistic(
                "these moments hold row norms only and this closed form needs X and Y; build them"
                " with Moments.of(x, y)"
            )
        x, y = self._pair() if callable(self._pair) else self._pair
        return wide(x), wide(y)

    @property
    def has_pair(self) -> bool:
        """Whether ``pair`` can be had."""
        return self._pair is not None

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make()`` gives, made when it is first asked for under ``key`` and kept since."""
        if key not in self._once:
            self._once[key] = make()
        return self._once[key]

    @cached_property
    def G(self) -> Float[Tensor, "p q"]:
        x, y = self.pair
        return x.T @ y

    @cached_property
    def C(self) -> Float[Tensor, ""]:
        return total_sq(self.G)

    @cached_property
    def Q(self) -> Float[Tensor, ""]:
        return self.x_sq.sum() * self.y_sq.sum()

    @cached_property
    def D(self) -> Float[Tensor, ""]:
        return self.x_sq @ self.y_sq

    @cached_property
    def L(self) -> Float[Tensor, ""]:
        return self.x_sq.sqrt() @ self.y_sq.sqrt()

    @cached_property
    def alpha(self) -> Float[Tensor, ""]:
        """C / Q in [0, 1]: how far the rows' outer products align. NaN for a zero X or Y."""
        return self.C / self.Q


def total_sq(t: Tensor) -> Float[Tensor, ""]:
    """Sum of the squares of all entries, in float64."""
    return torch.linalg.vector_norm(t, dtype=torch.float64).square()


def column_mean(t: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Mean row in float32 or wider; zero for no rows."""
    return wide(t).sum(0) / max(t.shape[0], 1)


def wide(t: Tensor) -> Tensor:
    """``t`` in float32 if it is narrower: squares overflow in float16 and lose digits in
    bfloat16.
    """
    return t.float() if t.element_size() < 4 else t


def row_sq(t: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Squared norms of the rows in float64, accumulated in float32 or wider."""
    return norm(t, dim=-1).double().square()


def norm(t: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Euclidean norm over ``dim`` (or of all entries), accumulated in float32 or wider without a
    wide copy.
    """
    return torch.linalg.vector_norm(
        t, dim=dim, dtype=torch.float32 if t.element_size() < 4 else t.dtype
    )
