"""What ``draw`` really draws: mean and variance of every estimator in the catalog over repeated
seeds, as z-tests.

Bounds: 4.5 standard errors for a variance, 5 for each of the 20 entries of a mean, so a correct
estimator fails for 2 of 10⁵ choices of the seed. The formulas themselves are tested more sharply
elsewhere, over every outcome.
"""

from typing import Any

import pytest
import torch

from sketchvar.estimators import CATALOG, Gaussian, Moments, build, empirical

DRAWS = 4000
MORE = {"priority-rows": 8000}  # whose squared weights have heavier tails, for the same power
# those that have no end of outcomes, and one of each way to draw; all outcomes of the others are
# enumerated by test_enumerate.py too, and of these too
SOON = ["gaussian", "haar", "feature-gaussian", "feature-haar", "principal-features"]
SOON += ["bernoulli-rows", "countsketch", "norm-rows", "priority-rows", "rounding:2", "srht"]
SOON += ["uniform-rows"]
VARIANCE_BOUND, MEAN_BOUND, POWER = 4.5, 5, 3.1


def pair(n=12):
    g = torch.Generator().manual_seed(5)
    size = torch.linspace(0.5, 1.5, n, dtype=torch.float64)[:, None]
    x, y = (torch.randn(n, d, generator=g, dtype=torch.float64) * size + 0.5 for d in (5, 4))
    return x, y


def within(measured, expected, bound):
    """Rounding is no Monte Carlo error: it is allowed beside the standard errors."""
    room = bound * measured.stderr + 1e-12 * expected.abs().max() + 1e-24
    return bool(((measured.value - expected).abs() <= room).all())


def closed_form(estimator, x, y):
    try:
        return estimator.variance(Moments.of(x, y))
    except NotImplementedError as e:
        assert "empirical" in str(e)
        return None


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in SOON else pytest.mark.slow) for n in CATALOG]
)
def test_mean_and_variance(name, unchecked):
    x, y = pair()
    exact = x.T @ y
    estimator: Any = build(name, 0.34, y.square().sum(1))
    always_the_same = estimator.traits.biased
    seen = empirical(estimator, x, y, 4 if always_the_same else MORE.get(name, DRAWS), seed=1)
    if always_the_same:
        bias_sq = estimator.bias_sq(Moments.of(x, y)).item()
        assert (seen.mean.value - exact).square().sum().item() == pytest.approx(bias_sq, rel=1e-9)
        return
    assert within(seen.mean, exact, MEAN_BOUND)
    formula = closed_form(estimator, x, y)
    if formula is None:
        return
    assert within(seen.variance, formula, VARIANCE_BOUND)
    if (
        formula > 0
    ):  # must fail: 20 % off is seen with probability above 0.999 at this number of draws
        assert 0.2 / 1.2 * formula > (VARIANCE_BOUND + POWER) * seen.variance.stderr
        assert not within(seen.variance, formula * 1.2, VARIANCE_BOUND)
        assert not within(seen.variance, formula / 1.2, VARIANCE_BOUND)
        shifted = exact + 12 * seen.mean.stderr.max()
        assert not within(seen.mean, shifted, MEAN_BOUND)


def test_seeds_are_independent():
    """Averages over m consecutive seeds have 1/m of the variance, which seeds that share numbers
    would not give.
    """
    x, y = pair()
    estimator, exact = Gaussian(0.34), x.T @ y
    errors = torch.stack(
        [estimator.contract(estimator.compress(x, s), y) - exact for s in range(4000)]
    )
    of_averages = errors.view(1000, 4, -1).mean(1).square().sum(1)
    stderr = of_averages.std() / 1000**0.5
    formula = estimator.variance(Moments.of(x, y)) / 4
    assert (of_averages.mean() - formula).abs() < VARIANCE_BOUND * stderr
    assert (of_averages.mean() - 1.5 * formula).abs() > VARIANCE_BOUND * stderr
