"""Metric: the quadratic form in which the error Ĝ − G of an estimate is measured."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.norms import row_sq, total_sq


class Metric(ABC):
    """‖E‖² of p × q matrices E, in other weights than those of Frobenius.

    It separates where a closed form needs it to: ⟨aᵢuᵢᵀ, bᵢvᵢᵀ⟩ of rows a, b of X and u, v of Y is
    the product of ``x_side(a, b)`` and ``y_side(u, v)``, n × r matrices, summed over r.
    """

    @abstractmethod
    def norm_sq(self, e: Float[Tensor, "p q"]) -> Float[Tensor, ""]:
        """‖E‖², in float64."""

    @abstractmethod
    def x_side(self, a: Float[Tensor, "n p"], b: Float[Tensor, "n p"]) -> Float[Tensor, "n r"]:
        """What two matrices of rows of X have in common, row by row."""

    @abstractmethod
    def y_side(self, u: Float[Tensor, "n q"], v: Float[Tensor, "n q"]) -> Float[Tensor, "n r"]:
        """What two matrices of rows of Y have in common, row by row."""

    @abstractmethod
    def x_errors(
        self, e: Float[Tensor, "n p"], basis: Float[Tensor, "p p"] | None = None
    ) -> Float[Tensor, "n r"]:
        """E ``x_side(δ, δ)`` of independent errors of mean 0 whose squares are expected to be
        ``e``: of δ itself, or of δR for an orthonormal ``basis`` R.
        """

    @abstractmethod
    def y_errors(
        self, d: Float[Tensor, "n q"], basis: Float[Tensor, "q q"] | None = None
    ) -> Float[Tensor, "n r"]:
        """The same of ``y_side``."""

    def total(self, x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> Float[Tensor, ""]:
        """Σ ‖x_a y_bᵀ‖² over all pairs of rows, in float64."""
        x_sum, y_sum = (side.sum(0, dtype=torch.float64) for side in self.sides(x, y))
        return x_sum @ y_sum

    def sides(
        self, x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]
    ) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n r"]]:
        """Of each row with itself."""
        return self.x_side(x, x), self.y_side(y, y)


@dataclass(frozen=True)
class Euclidean(Metric):
    """‖E‖²_F: the metric where nothing else is asked for."""

    def norm_sq(self, e: Float[Tensor, "p q"]) -> Float[Tensor, ""]:
        return total_sq(e)

    def x_side(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, "n 1"]:
        products = row_sq(a) if a is b else torch.linalg.vecdot(a, b).double()
        return products[:, None]

    def x_errors(
        self, e: Float[Tensor, "n d"], basis: Float[Tensor, "d d"] | None = None
    ) -> Float[Tensor, "n 1"]:
        return e.sum(1, keepdim=True, dtype=torch.float64)

    def y_side(self, u: Float[Tensor, "n d"], v: Float[Tensor, "n d"]) -> Float[Tensor, "n 1"]:
        return self.x_side(u, v)

    def y_errors(
        self, d: Float[Tensor, "n d"], basis: Float[Tensor, "d d"] | None = None
    ) -> Float[Tensor, "n 1"]:
        return self.x_errors(d, basis)


@dataclass(frozen=True, eq=False)
class Diagonal(Metric):
    """Σ Wⱼₖ E²ⱼₖ, for ``weights`` W ≥ 0 (p × q).

    Every closed form is the sum over the entries of E of what it is for p = q = 1, so that
    ‖x‖²‖y‖² becomes (x∘x)ᵀW(y∘y) in it. What it costs: a product with W.
    """

    weights: Float[Tensor, "p q"]

    @cached_property
    def root(self) -> Float[Tensor, "p q"]:
        """√W: ‖E‖² is ‖√W∘E‖²_F."""
        return self.weights.sqrt()

    def norm_sq(self, e: Float[Tensor, "p q"]) -> Float[Tensor, ""]:
        return e.square().mul_(self.weights).sum().double()

    def x_side(self, a: Float[Tensor, "n p"], b: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        return a * b

    def y_side(self, u: Float[Tensor, "n q"], v: Float[Tensor, "n q"]) -> Float[Tensor, "n p"]:
        return self.y_errors(u * v)

    def x_errors(
        self, e: Float[Tensor, "n p"], basis: Float[Tensor, "p p"] | None = None
    ) -> Float[Tensor, "n p"]:
        return e if basis is None else e @ basis.square().T

    def y_errors(
        self, d: Float[Tensor, "n q"], basis: Float[Tensor, "q q"] | None = None
    ) -> Float[Tensor, "n p"]:
        weights = self.weights.T.to(d.dtype)
        return d @ (weights if basis is None else basis.square().T @ weights)

    def total(self, x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> Float[Tensor, ""]:
        return row_sq(x.T) @ self.weights.double() @ row_sq(y.T)


@dataclass(frozen=True, eq=False)
class Kronecker(Metric):
    """tr(A E B Eᵀ), for symmetric A = ``of_x`` (p × p) and B = ``of_y`` (q × q) without negative
    eigenvalues, as those of K-FAC and Shampoo.

    It is ‖·‖²_F of the pair (XA^½, YB^½) for sketches that do not look at X. Sampling goes on by
    the norms of X itself, independent errors of entries count by the diagonals.
    """

    of_x: Float[Tensor, "p p"]
    of_y: Float[Tensor, "q q"]

    def norm_sq(self, e: Float[Tensor, "p q"]) -> Float[Tensor, ""]:
        turned = self.of_x.to(e.dtype) @ e @ self.of_y.to(e.dtype)
        return (turned * e).sum(dtype=torch.float64).clamp(min=0)

    def x_side(self, a: Float[Tensor, "n p"], b: Float[Tensor, "n p"]) -> Float[Tensor, "n 1"]:
        return inner_products(a, self.of_x, b)

    def y_side(self, u: Float[Tensor, "n q"], v: Float[Tensor, "n q"]) -> Float[Tensor, "n 1"]:
        return inner_products(u, self.of_y, v)

    def x_errors(
        self, e: Float[Tensor, "n p"], basis: Float[Tensor, "p p"] | None = None
    ) -> Float[Tensor, "n 1"]:
        return e @ diagonal_in(self.of_x.to(e.dtype), basis)

    def y_errors(
        self, d: Float[Tensor, "n q"], basis: Float[Tensor, "q q"] | None = None
    ) -> Float[Tensor, "n 1"]:
        return d @ diagonal_in(self.of_y.to(d.dtype), basis)


EUCLIDEAN = Euclidean()


def as_metric(weights: Tensor | Metric | None, p: int, q: int) -> Metric:
    """The metric that ``weights`` mean for p × q errors: W itself, a ``Kronecker``, or None for the
    Euclidean one. One device synchronisation.

    Raises ValueError for weights of another shape, negative or not finite, and for the matrices of
    a Kronecker metric that are not symmetric or have negative eigenvalues.
    """
    if weights is None:
        return EUCLIDEAN
    if isinstance(weights, Kronecker):
        check_form("A", weights.of_x, p)
        check_form("B", weights.of_y, q)
        return weights
    if isinstance(weights, Metric):
        return weights
    weights = torch.as_tensor(weights).detach()
    if weights.shape != (p, q):
        other = "; transpose it" if weights.shape == (q, p) else ""
        raise ValueError(
            f"the weights of a metric must be p × q = {p} × {q}, as G = XᵀY is, the transpose of a"
            f" layer's weight; got shape {tuple(weights.shape)}{other}"
        )
    if not weights.is_floating_point():
        weights = weights.double()
    if weights.numel() and not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError(
            "the weights of a metric must be finite and >= 0, got values from"
            f" {weights.min().item():g} to {weights.max().item():g}; clamp them, or use their"
            " squares"
        )
    return Diagonal(weights)


def check_form(name: str, form: Tensor, size: int) -> None:
    """Raise ValueError unless this matrix is symmetric, positive semidefinite, and of this size."""
    if form.shape != (size, size):
        raise ValueError(
            f"{name} of a Kronecker metric must be {size} × {size}, got shape {tuple(form.shape)};"
            " it is Kronecker(A, B) with A of X's features and B of Y's"
        )
    room = 1e-5 * form.abs().max() if size else 0.0
    if not bool((form - form.T).abs().le(room).all()) or bool(
        (torch.linalg.eigvalsh(form.double()) < -room).any()
    ):
        raise ValueError(
            f"{name} of a Kronecker metric must be finite, symmetric and without negative"
            " eigenvalues; use (A + A.T) / 2 of a covariance"
        )


def diagonal_in(
    form: Float[Tensor, "d d"], basis: Float[Tensor, "d d"] | None
) -> Float[Tensor, "d 1"]:
    """The diagonal of RᵀFR."""
    diagonal = form.diagonal() if basis is None else ((form @ basis) * basis).sum(0)
    return diagonal[:, None]


def inner_products(
    a: Float[Tensor, "n d"], form: Float[Tensor, "d d"], b: Float[Tensor, "n d"]
) -> Float[Tensor, "n 1"]:
    """aᵢᵀ F bᵢ of each row, in float64."""
    return ((a @ form.to(a.dtype)) * b).sum(1, keepdim=True, dtype=torch.float64)
