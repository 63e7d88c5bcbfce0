"""Gaussian has no outcomes to enumerate: a Monte Carlo z-test of fixed size, with the controls that
it must reject.

Bound: 4.5 standard errors, which a true formula exceeds by chance in 7 of 10⁶ seeds (two-sided).
Power: a formula 5 % off lies more than 4.5 + 3.1 standard errors away (asserted), so it is rejected
with probability above 0.999.
"""

import pytest
import torch

from sketchvar.estimators import Gaussian, Measured, Moments
from sketchvar.estimators.kernels import RandomMatrix

BOUND, POWER = 4.5, 3.1
DRAWS = 200_000


@pytest.fixture(scope="module")
def case():
    """A pair with a large alpha = C / Q, and (mean, variance) measured over draws of S made here,
    through ``apply``.
    """
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, generator=g) * 0.6 + 1
    y = torch.randn(6, 2, generator=g) * 0.6 + 1
    estimator = Gaussian(0.5)
    s = torch.randn(DRAWS, 6, estimator.k(6), generator=g)

    def estimated(s):
        matrix = RandomMatrix(lambda *_: s, *s.shape, seed=0)
        return estimator.apply(matrix, x).T @ estimator.apply(matrix, y)

    estimates = torch.vmap(estimated)(s).double()
    exact = x.double().T @ y.double()
    return (
        estimator,
        Moments.of(x, y),
        exact,
        measured(estimates),
        measured((estimates - exact).square().sum((1, 2))),
    )


def measured(each):
    return Measured(each.mean(0), each.std(0) / len(each) ** 0.5, len(each))


def accepts(value, expected):
    return bool((value.z(expected).abs() < BOUND).all())


def test_mean(case):
    _, _, exact, mean, _ = case
    assert accepts(mean, exact)
    assert not accepts(mean, exact * 1.05)
    assert not accepts(mean, exact / 1.05)


def test_variance(case):
    estimator, m, _, _, variance = case
    formula = estimator.variance(m)
    assert (
        0.05 / 1.05 * formula > (BOUND + POWER) * variance.stderr
    )  # the power that the first lines state
    assert accepts(variance, formula)
    assert not accepts(variance, formula * 1.05)
    assert not accepts(variance, formula / 1.05)


def test_the_papers_sign_of_C_is_rejected(case):
    estimator, m, _, _, variance = case
    k = estimator.k(m.n)
    assert m.alpha > 0.3
    assert not accepts(variance, (m.Q - m.C) / k)
    assert variance.value > 1.8 * (m.Q - m.C) / k  # (1 + alpha) / (1 − alpha)


def test_other_fourth_moments_are_rejected(case):
    estimator, m, _, _, variance = case
    assert not accepts(variance, (m.Q + m.C - 2 * m.D) / estimator.k(m.n))


def test_draws_are_standard_normal():
    cpu = torch.device("cpu")
    s = Gaussian(0.5).draw(1000, 3, cpu).entries(1000, 500, 3, cpu).double()
    count = s.numel()
    assert s.shape == (1000, 500)
    assert abs(s.mean()) < BOUND * count**-0.5
    assert abs(s.square().mean() - 1) < BOUND * (2 / count) ** 0.5
    assert abs(s.pow(4).mean() - 3) < BOUND * (96 / count) ** 0.5
