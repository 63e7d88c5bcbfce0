"""Moments: all that a closed form may know about a pair (X, Y)."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from sketchvar.estimators.quantize import StochasticRounding

CHUNK = 256  # rows at a time where a copy is made: it stays in the cache


class Moments:
    """Statistics of X (n × p) and Y (n × q), G = XᵀY, in float64. What is not asked for is not
    computed.

    ``x_sq`` and ``y_sq`` hold ‖xᵢ‖² and ‖yᵢ‖², one per row. Formulas use the letters of the
    literature:

        Q = ‖X‖²_F ‖Y‖²_F    C = ‖G‖²_F    D = Σᵢ ‖xᵢ‖²‖yᵢ‖²    L = Σᵢ ‖xᵢ‖‖yᵢ‖    alpha = C / Q

    Build one with ``Moments.of(x, y)``, or from row norms and C where the pair itself is gone (a
    probe's case).
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
        self._row_errors: dict[StochasticRounding, Tensor] = {}
        self._ends: dict[int | None, tuple[Tensor, Tensor]] = {}  # of groups of so many features
        if C is not None:
            self.C = C.double()  # takes the place of the cached property

    @classmethod
    def of(cls, x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> "Moments":
        """The moments of a pair, which is kept (by reference) for the statistics that need all of
        it. NumPy arrays are taken too.
        """
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        return cls(x.shape[1], y.shape[1], row_sq(x), row_sq(y), pair=(x, y))

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """(X, Y) in at least float32. Raises ValueError for moments that were made without the
        pair.
        """
        if self._pair is None:
            raise ValueError(
                "these moments hold row norms only and this closed form needs X and Y; build them"
                " with Moments.of(x, y)"
            )
        x, y = self._pair() if callable(self._pair) else self._pair
        return wide(x), wide(y)

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

    @cached_property
    def mirrored(self) -> Float[Tensor, ""]:
        """Σ ‖x_a‖²‖y_a'‖² + 2⟨x_a,x_a'⟩⟨y_a,y_a'⟩ over the rows a ≠ a' = n − 1 − a, counted from
        the other end.
        """
        x, y = self.pair
        half = self.n // 2
        norms = (
            self.x_sq[:half] @ self.y_sq.flip(0)[:half]
            + self.y_sq[:half] @ self.x_sq.flip(0)[:half]
        )
        return norms + 4 * (mirror_products(x) @ mirror_products(y))

    @cached_property
    def centered(self) -> "Moments":
        """Moments of (X − 1x̄ᵀ, Y − 1ȳᵀ), subtracted before anything is squared, so that a large
        mean costs no digits.

        The centred pair is made anew for each statistic that needs it, and not kept.
        """
        x, y = self.pair
        x_mean, y_mean = column_mean(x), column_mean(y)
        x_sq, y_sq = centered_row_sq(x, x_mean), centered_row_sq(y, y_mean)
        left = total_sq(self.G - torch.outer(self.n * x_mean, y_mean))
        # where next to nothing is left of G it has lost digits, and C is formed from the centred
        # pair when asked for
        C = left if left > 1e-6 * self.C else None
        return Moments(self.p, self.q, x_sq, y_sq, C, pair=lambda: (x - x_mean, y - y_mean))

    @cached_property
    def features(self) -> "Moments":
        """Moments of (I, G): as Ĝ − G = (RRᵀ − I)G, to project features by R is to sketch the rows
        of that pair by R.

        Where only C is known it is spread over the rows of G evenly, which leaves the D of that
        pair, C, as it is.
        """
        if self._pair is None:
            g_sq = self.C.expand(self.p) / max(self.p, 1)
            return Moments(self.p, self.q, torch.ones_like(g_sq), g_sq, C=self.C)
        g, g_sq = self.G, row_sq(self.G)
        return Moments(
            self.p,
            self.q,
            torch.ones_like(g_sq),
            g_sq,
            self.C,
            pair=lambda: (torch.eye(len(g)).to(g), g),
        )

    def row_errors(self, rounding: "StochasticRounding") -> Float[Tensor, " n"]:
        """E‖x̂ᵢ − xᵢ‖² of each row under ``rounding``, computed once however many closed forms need
        it.
        """
        if rounding not in self._row_errors:
            x, group = self.pair[0], rounding.group
            if not rounding.rotate and group not in self._ends:
                self._ends[group] = rounding.ends(x)
            self._row_errors[rounding] = rounding.row_errors(
                x, None if rounding.rotate else self._ends[group]
            )
        return self._row_errors[rounding]

    def C_without(self, rows: Int[Tensor, " k"]) -> Float[Tensor, ""]:
        """‖Σ xᵢyᵢᵀ‖² over the rows that are not among ``rows`` (distinct numbers): the cost of the
        smaller part of G.

        Where ``rows`` are fewer than half, their part is subtracted from G in the dtype of the
        pair.
        """
        x, y = self.pair
        if 2 * rows.shape[0] <= self.n:
            return total_sq(self.G - x[rows].T @ y[rows])
        others = torch.ones(self.n, dtype=torch.bool, device=rows.device).index_fill_(
            0, rows, False
        )
        return total_sq(x[others].T @ y[others])


def total_sq(t: Tensor) -> Float[Tensor, ""]:
    """Sum of the squares of all entries, in float64."""
    return torch.linalg.vector_norm(t, dtype=torch.float64).square()


def mirror_products(t: Float[Tensor, "n d"]) -> Float[Tensor, " half"]:
    """⟨t_a, t_a'⟩ of each row a of the first half and a' = n − 1 − a, in float64."""
    n, half = t.shape[0], t.shape[0] // 2
    products = [t.new_zeros(0, dtype=torch.float64)]
    for start in range(0, half, CHUNK):
        end = min(start + CHUNK, half)
        products.append(torch.linalg.vecdot(t[start:end], t[n - end : n - start].flip(0)).double())
    return torch.cat(products)


def centered_row_sq(t: Float[Tensor, "n d"], mean: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
    """Squared norms of the rows less ``mean``, in float64."""
    return torch.cat([row_sq(rows - mean) for rows in t.split(CHUNK)])


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
