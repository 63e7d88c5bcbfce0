"""A z-test of fixed size for estimators whose outcomes cannot be enumerated.

Bound: 4.5 standard errors, exceeded by a true formula for 7 of 10⁶ seeds. Power, asserted: a
formula 5 % off lies more than 4.5 + 3.1 standard errors away, so it is rejected with probability
above 0.999.
"""

import torch
from torch import Tensor

from sketchvar.estimators import Measured

BOUND, POWER = 4.5, 3.1


def check(estimates: Tensor, exact: Tensor, formula: Tensor) -> Measured:
    """Mean and variance of ``estimates`` (draws × p × q) against G and the closed form; returns the
    variance.
    """
    errors = (estimates - exact).square().sum((1, 2))
    variance = Measured(errors.mean(), errors.std() / len(errors) ** 0.5, len(errors))
    mean = Measured(estimates.mean(0), estimates.std(0) / len(errors) ** 0.5, len(errors))
    assert 0.05 / 1.05 * formula > (BOUND + POWER) * variance.stderr
    assert (mean.z(exact).abs() < BOUND).all()
    assert (mean.z(exact + 0.05 * exact.norm()).abs() > BOUND).any()
    assert variance.z(formula).abs() < BOUND
    assert variance.z(formula * 1.05).abs() > BOUND
    assert variance.z(formula / 1.05).abs() > BOUND
    return variance


def rejects(variance: Measured, formula: Tensor) -> bool:
    return bool(variance.z(formula).abs() > BOUND)


def case(seed: int = 0, n: int = 6, p: int = 3, q: int = 2) -> tuple[Tensor, Tensor]:
    """A pair with a large alpha = C / Q, so that the sign of C shows."""
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=g, dtype=torch.float64) * 0.6 + 1 for d in (p, q))  # type: ignore[return-value]
