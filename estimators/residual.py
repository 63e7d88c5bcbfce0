"""Residual: a coarse part of X as it is, and an unbiased estimator of what is left; Shrunk."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.coarse import Coarse, LargestEntries
from sketchvar.estimators.estimator import (
    SEED_BYTES,
    Compressed,
    Estimator,
    Traits,
    check_rate,
    write_call,
)
from sketchvar.estimators.moments import Moments

PAGE = 4096  # bytes


@dataclass(frozen=True)
class Residual(Estimator):
    """Keeps a coarse part X̃ of X, the same every time, and what ``inner`` keeps of X − X̃; without
    ``inner`` the rest is forgotten, and the estimate biased.

    ``coarse`` is a class of ``coarse.py`` and ``inner`` that of an estimator; both take the rate.
    So DropIT, CHON, LoRAct, PAMM and VeLoRA are ``Residual(rate, LargestEntries)`` and so on, and
    with ``inner`` each is without its bias.
    Variance: that of ``inner`` on (X − X̃, Y); without it all bias, ‖(X − X̃)ᵀY‖². Bytes and time:
    those of both parts.
    Use: with an inner estimator, where a coarse part holds most of X; without, to see the bias
    of a published method.
    Raises: TypeError for a ``coarse`` that is no such class, ValueError for a biased ``inner``;
    ``compress`` ValueError for a part that would keep more than X.
    Source: derived in this project; the parts name their papers.
    """

    rate: float
    coarse: type[Coarse] = LargestEntries
    inner: type[Estimator] | None = None

    __repr__ = write_call

    def __post_init__(self) -> None:
        if not (isinstance(self.coarse, type) and issubclass(self.coarse, Coarse)):
            raise TypeError(
                "Residual needs the class of a coarse part, as in Residual(0.1, LowRank), got"
                f" {self.coarse!r}"
            )
        check_rate(self, self.rate)
        if self.rest is not None and self.rest.traits.biased:
            raise ValueError(f"Residual needs an unbiased estimator inside, got {self.rest}")

    @property
    def part(self) -> Coarse:
        """What is taken away first."""
        return self.coarse(self.rate)

    @property
    def rest(self) -> Any:
        """The estimator of what is left, if any."""
        return None if self.inner is None else self.inner(self.rate)  # type: ignore[call-arg]

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """Those of ``inner``; the rest needs the pair, and is in the basis of the features."""
        own = Traits(biased=True) if self.inner is None else self.rest.traits
        return own._replace(
            needs_pair=True,
            basis_matters=True,
            order_matters=True,
            skips_unseen=False,
            slow_form=True,
        )

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        shape = (x.shape[0], x.shape[1])
        self.check_size(*shape, x.dtype)
        kept = self.part.keep(x)
        if self.inner is None:
            return Compressed(seed, shape, kept)
        left = x - self.part.rebuild(kept, shape, x.dtype)
        return Compressed(seed, shape, (*kept, *self.rest.compress(left, seed).tensors))

    def check_size(self, n: int, p: int, dtype: torch.dtype) -> None:
        """Raise ValueError where the coarse part keeps more than X, by more than a page: in a small
        X places and scales are most of it, whatever the rate.
        """
        kept, whole = self.part.kept_bytes(n, p, dtype), n * p * dtype.itemsize
        if kept > whole + PAGE:
            raise ValueError(
                f"{self.part} keeps {kept} bytes of an X of {whole}, {n} × {p} in"
                f" {str(dtype).removeprefix('torch.')}: its numbers and their places; take a lower"
                " rate"
            )

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        count = self.coarse.tensors
        known = self.part.rebuild(kept.tensors[:count], kept.shape, y.dtype).T @ y
        if self.inner is None:
            return known
        return known + self.rest.contract(kept._replace(tensors=kept.tensors[count:]), y)

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        if self.inner is None:
            return self.bias_sq(m)
        return self.rest.variance(Moments.of(self.left(m), m.pair[1], m.metric))

    def bias_sq(self, m: Moments) -> Float[Tensor, ""]:
        """‖(X − X̃)ᵀY‖²_F where nothing estimates the rest, else zero."""
        if self.inner is not None:
            return torch.zeros_like(m.D)
        return m.metric.norm_sq(self.left(m).T @ m.pair[1])

    def left(self, m: Moments) -> Float[Tensor, "n p"]:
        """X − X̃, made anew each time: it is as large as X, of which there is one for all rates."""
        x = m.pair[0]
        kept = m.once(("coarse", self.part), lambda: self.part.keep(x))
        return x - self.part.rebuild(kept, (m.n, m.p), x.dtype)

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        rest = SEED_BYTES if self.inner is None else self.rest.kept_bytes(n, p, dtype)
        return rest + self.part.kept_bytes(n, p, dtype)


@dataclass(frozen=True)
class Shrunk(Estimator):
    """Keeps what an unbiased ``inner`` keeps and estimates λĜ, λ being ``factor``: biased, and
    nearer to G in the mean where λ is near C/(C + Var), which only an oracle knows.

    Variance: its mean squared error, λ²Var + (1 − λ)²C, of which (1 − λ)²C is bias. Bytes and time:
    those of ``inner``.
    Use: to see when a biased estimator would win.
    Raises: ValueError unless 0 < factor <= 1 and ``inner`` is unbiased.
    Source: James and Stein 1961, https://projecteuclid.org/euclid.bsmsp/1200512173.
    """

    inner: Estimator
    factor: float = field(default=1.0)

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 1:
            raise ValueError(f"Shrunk needs 0 < factor <= 1, got factor={self.factor}")
        if self.inner.traits.biased:
            raise ValueError(f"Shrunk needs an unbiased estimator inside, got {self.inner}")

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """Those of ``inner``, and biased."""
        return self.inner.traits._replace(biased=self.factor < 1)

    def compress(self, x: Float[Tensor, "n p"], seed: int) -> Compressed:
        return self.inner.compress(x, seed)

    def contract(self, kept: Compressed, y: Float[Tensor, "n q"]) -> Float[Tensor, "p q"]:
        return self.inner.contract(kept, y) * self.factor

    def variance(self, m: Moments) -> Float[Tensor, ""]:
        return self.factor**2 * self.inner.variance(m) + self.bias_sq(m)

    def bias_sq(self, m: Moments) -> Float[Tensor, ""]:
        """(1 − λ)²C."""
        return (1 - self.factor) ** 2 * m.C

    def kept_bytes(self, n: int, p: int, dtype: torch.dtype) -> int:
        return self.inner.kept_bytes(n, p, dtype)
