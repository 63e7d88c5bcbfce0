"""Moments: all that a closed form may know about a pair (X, Y)."""

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.metric import EUCLIDEAN, Metric, as_metric
from sketchvar.estimators.norms import row_sq, wide

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
    probe's case); a ``pair`` may be a function that gives it. A statistic that one estimator alone
    needs stands with that estimator and is kept here by ``once``.

    In another ``metric`` than the Euclidean one ‖·‖² of a p × q matrix is that of the metric, so
    that Q is the sum of ‖xᵢyⱼᵀ‖² and D that of ``rows_sq``; ``x_sq`` and ``y_sq``, by which rows
    are sampled, stay as they are. Without the pair Q, ``rows_sq`` and G have to be
    given then, as far as they are asked for.

    Raises ValueError for norms that are not one per row, and where none of C, the pair and G is
    given; UnknownStatistic, a ValueError, where one is asked for that is not known.
    """

    def __init__(
        self,
        p: int,
        q: int,
        x_sq: Float[Tensor, " n"],
        y_sq: Float[Tensor, " n"],
        C: Float[Tensor, ""] | None = None,
        pair: tuple[Tensor, Tensor] | Callable[[], tuple[Tensor, Tensor]] | None = None,
        metric: Metric = EUCLIDEAN,
        Q: Float[Tensor, ""] | None = None,
        rows_sq: Float[Tensor, " n"] | None = None,
        G: Float[Tensor, "p q"] | None = None,
    ) -> None:
        if x_sq.shape != y_sq.shape or x_sq.ndim != 1:
            raise ValueError(
                f"x_sq and y_sq need one entry per row, got {tuple(x_sq.shape)} and"
                f" {tuple(y_sq.shape)}"
            )
        if C is None and pair is None and G is None:
            raise ValueError(
                "Moments needs C = ‖XᵀY‖² or the pair (X, Y) to compute it from, got neither"
            )
        self.n, self.p, self.q = x_sq.shape[0], p, q
        self.x_sq, self.y_sq = x_sq.double(), y_sq.double()
        self._pair = pair
        self._once: dict[Hashable, Any] = {}
        self.metric = metric
        known = {"C": C, "Q": Q, "rows_sq": rows_sq}
        # take the places of the cached properties
        vars(self).update({name: t.double() for name, t in known.items() if t is not None})
        if G is not None:
            self.G = wide(G)

    def __repr__(self) -> str:
        known = "with" if self.has_pair else "without"
        return f"Moments(n={self.n}, p={self.p}, q={self.q}, {known} X and Y)"

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "n p"],
        y: Float[Tensor, "n q"],
        weights: Float[Tensor, "p q"] | Metric | None = None,
    ) -> "Moments":
        """Build the moments of a pair X (n × p), Y (n × q), which is kept (by reference) for the
        statistics that need all of it. NumPy arrays are taken too.

        >>> m = Moments.of(torch.eye(2), torch.ones(2, 3))
        >>> print(f"Q = {m.Q:g}, C = {m.C:g}, D = {m.D:g}, alpha = {m.alpha:g}")
        Q = 12, C = 6, D = 6, alpha = 0.5

        ``weights`` W ≥ 0, p × q as G, the transpose of a layer's weight, ask for the diagonal
        metric Σ Wⱼₖ (Ĝ − G)²ⱼₖ, a ``Kronecker`` for that one. Every closed form is then exact in
        it, at the price of a product or two more.

        >>> m = Moments.of(torch.eye(2), torch.ones(2, 3), torch.tensor([[1.0, 0, 0], [0, 0, 2]]))
        >>> print(f"Q = {m.Q:g}, C = {m.C:g}, D = {m.D:g}")
        Q = 6, C = 3, D = 3

        Raises ValueError for weights of another shape, negative or not finite.
        """
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        p, q = x.shape[1], y.shape[1]
        metric = as_metric(weights, p, q)
        return cls(p, q, row_sq(x), row_sq(y), pair=(x, y), metric=metric)

    @classmethod
    def of_sums(
        cls,
        n: int,
        p: int,
        q: int,
        Q: Float[Tensor, "*some"],
        C: Float[Tensor, "*some"],
        D: Float[Tensor, "*some"],
        metric: Metric = EUCLIDEAN,
    ) -> "Moments":
        """Build moments of any number of pairs at once, all n × p and n × q, of which no more is
        known than Q, C and D in a ``metric``: scalars, or a tensor each of one shape. What
        else a closed form asks for raises UnknownStatistic.
        """
        m = cls.__new__(cls)
        m.n, m.p, m.q, m._pair, m._once, m.metric = n, p, q, None, {}, metric
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
        """(X, Y) in at least float32. Raises UnknownStatistic for moments that were made without
        the pair.
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

    def knows(self, name: str) -> bool:
        """Whether the statistic of this ``name`` is known, or can be computed."""
        return self.plain or self.has_pair or name in vars(self)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make()`` gives, made when it is first asked for under ``key`` and kept since."""
        if key not in self._once:
            self._once[key] = make()
        return self._once[key]

    @property
    def plain(self) -> bool:
        """Whether the metric is the Euclidean one."""
        return self.metric is EUCLIDEAN

    def weigh(
        self,
        errors: Float[Tensor, "n p"],
        basis: Float[Tensor, "p p"] | None = None,
        y: Float[Tensor, "n q"] | None = None,
    ) -> Float[Tensor, " n"]:
        """E‖δᵢyᵢᵀ‖² of each row, for independent errors δ of X, in ``basis`` where features are
        mixed, whose squares are expected to be ``errors``; ``y`` in place of Y where rows are.
        """
        y_side = self.y_side if y is None else self.metric.y_side(y, y)
        return (self.metric.x_errors(errors, basis) * y_side).sum(1, dtype=torch.float64)

    @property
    def x_side(self) -> Float[Tensor, "n r"]:
        """What the rows of X bring to ‖xᵢyⱼᵀ‖² = Σ_r ``x_side`` · ``y_side``."""
        if self.plain:
            return self.x_sq[:, None]
        x, _ = self.pair
        return self.metric.x_side(x, x)

    @cached_property
    def y_side(self) -> Float[Tensor, "n r"]:
        """What the rows of Y bring to it."""
        if self.plain:
            return self.y_sq[:, None]
        _, y = self.pair
        return self.metric.y_side(y, y)

    @cached_property
    def rows_sq(self) -> Float[Tensor, " n"]:
        """‖xᵢyᵢᵀ‖² of each row."""
        if self.plain:
            return self.x_sq * self.y_sq
        return (self.x_side * self.y_side).sum(1, dtype=torch.float64)

    @cached_property
    def G(self) -> Float[Tensor, "p q"]:
        """XᵀY."""
        x, y = self.pair
        return x.T @ y

    @cached_property
    def C(self) -> Float[Tensor, ""]:
        """‖G‖²."""
        return self.metric.norm_sq(self.G)

    @cached_property
    def Q(self) -> Float[Tensor, ""]:
        """‖X‖²‖Y‖²: the sum of ‖xᵢyⱼᵀ‖² over all pairs of rows."""
        if self.plain:
            return self.x_sq.sum() * self.y_sq.sum()
        return self.metric.total(*self.pair)

    @cached_property
    def D(self) -> Float[Tensor, ""]:
        """Σᵢ ‖xᵢ‖²‖yᵢ‖²: the part of Q in which both are the same row."""
        return self.x_sq @ self.y_sq if self.plain else self.rows_sq.sum()

    @cached_property
    def L(self) -> Float[Tensor, ""]:
        """Σᵢ ‖xᵢ‖‖yᵢ‖, of which L² is the least mean square of a sampled row's estimate."""
        return self.x_sq.sqrt() @ self.y_sq.sqrt() if self.plain else self.rows_sq.sqrt().sum()

    @cached_property
    def alpha(self) -> Float[Tensor, ""]:
        """C / Q in [0, 1]: how far the rows' outer products align. NaN for a zero X or Y."""
        return self.C / self.Q
