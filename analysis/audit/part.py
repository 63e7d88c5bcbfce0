"""Part: what repeated draws say of one tensor of a layer: its bias², its variance, and the chance
of both without a bias.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan, sqrt

import torch
from scipy.stats import f as fisher
from torch import Tensor

from sketchvar.estimators.norms import total_sq, wide

CHUNK = 2**20  # entries at a time of all draws, in float64
NOTHING = 1e-12  # of the mean square, is rounding


@dataclass(frozen=True)
class Part:
    """What ``draws`` draws say of a tensor T, of which ``norm_sq`` is ‖·‖² of the right one.

    ``bias_sq`` is ‖E T − right‖², estimated without bias, so that it may be below zero;
    ``variance`` is E‖T − E T‖²; their standard errors are ``bias_stderr`` and ``variance_stderr``.
    ``p_value`` is the chance of a mean so
    far off if there were no bias. ``minibatch`` is the variance of the right gradient over
    minibatches like this one, NaN for what is not summed over examples.
    """

    norm_sq: float
    bias_sq: float
    bias_stderr: float
    variance: float
    variance_stderr: float
    p_value: float
    draws: int
    minibatch: float = nan

    def __repr__(self) -> str:
        bias = f"bias² {self.bias_sq:.3g} ± {self.bias_stderr:.2g} (p = {self.p_value:.2g})"
        variance = f"variance {self.variance:.3g} ± {self.variance_stderr:.2g}"
        return f"{bias}, {variance}, ‖right‖² {self.norm_sq:.3g}; {self.draws} draws"

    def average(self, count: int) -> float:
        """The mean square error of the average of ``count`` draws: bias² + variance / count."""
        return self.bias_sq + self.variance / count

    @property
    def growth(self) -> float:
        """``draws`` times the error of their average, over the error of one: about 1 without a
        bias, ``draws`` where there is nothing else.
        """
        return self.draws * self.average(self.draws) / self.average(1) if self.average(1) else nan


def judge(found: Sequence[Tensor], exact: Tensor, minibatch: float = nan) -> Part:
    """All that is said of a tensor, from the inner products ⟨eᵢ, eⱼ⟩ of the errors of its draws.

    The mean over i ≠ j estimates bias²; it has variance 4bᵀΣb/N + 2 tr Σ²/N(N − 1), b the bias and
    Σ the covariance of an error. tr Σ² is the mean of ⟨eᵢ − ē, eⱼ − ē⟩², bᵀΣb the variance of
    ⟨eᵢ, mean of the others⟩ less tr Σ²/(N − 1). Raises ValueError where something is not finite.
    """
    n, precision = len(found), torch.finfo(found[0].dtype).eps
    drawn = torch.stack([wide(t).flatten() for t in found])
    products = multiply(drawn, exact.flatten())
    if not products.isfinite().all():
        raise ValueError("it is not finite; audit at an x and y where the layer is")
    squares = products.diagonal()
    sums = products.sum(1) - squares
    bias_sq = float(sums.sum()) / (n * (n - 1))
    centred = products - products.mean(0) - products.mean(1)[:, None] + products.mean()
    deviations = centred.diagonal() * n / (n - 1)
    variance = float(deviations.mean())
    variance = variance if variance > NOTHING * float(squares.mean()) else 0.0
    others = ~torch.eye(n, dtype=torch.bool, device=products.device)
    spread = float((centred[others] + variance / n).square().mean())  # tr Σ²
    spread = min(max(spread, variance**2 / max(exact.numel(), 1)), variance**2)
    along = max(float((sums / (n - 1)).var()) - spread / (n - 1), 0.0)  # bᵀΣb
    norm_sq = float(total_sq(exact))
    room = norm_sq * (precision**2 + (32 * torch.finfo(drawn.dtype).eps) ** 2)  # for rounding
    off = max(sqrt(max(float(products.mean()), 0.0)) - sqrt(room), 0.0) ** 2
    return Part(
        norm_sq=norm_sq,
        bias_sq=bias_sq,
        bias_stderr=sqrt(4 * along / n + 2 * spread / (n * (n - 1))) if variance else 0.0,
        variance=variance,
        variance_stderr=float(deviations.std()) / sqrt(n) if variance else 0.0,
        p_value=find_p_value(off, variance, spread, n),
        draws=n,
        minibatch=minibatch,
    )


def find_p_value(off: float, variance: float, spread: float, n: int) -> float:
    """The chance that the mean of n draws without a bias has an error whose square is beyond
    ``off``: by Box's F, with the degrees of freedom (tr Σ)²/tr Σ² and n − 1 times as many.
    """
    if not off:
        return 1.0
    ratio = n * off / variance if variance else inf
    freedom = variance**2 / spread if spread else 1.0
    return float(fisher.sf(ratio, freedom, freedom * (n - 1)))


def multiply(drawn: Tensor, exact: Tensor) -> Tensor:
    """⟨eᵢ, eⱼ⟩ of the errors eᵢ = drawnᵢ − exact, in float64 (draws × draws)."""
    total = torch.zeros(len(drawn), len(drawn), dtype=torch.float64, device=drawn.device)
    size = max(CHUNK // len(drawn), 1)
    for part, right in zip(drawn.split(size, 1), exact.split(size), strict=True):
        errors = part.double() - right
        total += errors @ errors.T
    return total
