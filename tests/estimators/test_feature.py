"""FeatureProjection over every outcome, a z-test for the Gaussian, and the variances written
out.
"""

import pytest
import torch
from support.zscore import case, check, rejects
from test_enumerate import agrees, pair

from sketchvar.estimators import (
    CountSketch,
    FeatureProjection,
    Gaussian,
    Haar,
    Moments,
    Rademacher,
    SubsampledDCT,
    UniformRows,
    estimate,
)
from sketchvar.estimators.testing import mean_and_variance

# distribution: (rate, variance of p features to r over C, {why it is wrong: the same})
WRITTEN = {
    Gaussian: lambda p, r: (p + 1) / r,
    Rademacher: lambda p, r: (p - 1) / r,
    UniformRows: lambda p, r: p / r - 1,
    CountSketch: lambda p, r: p / r - 1,  # if r divides p
}


@pytest.mark.parametrize("distribution", [Rademacher, UniformRows, CountSketch, SubsampledDCT])
@pytest.mark.parametrize("rate", [0.3, 0.7, 1.0])
def test_enumeration(distribution, rate):
    x, y = pair(4)
    estimator, m, exact = FeatureProjection(rate, distribution), Moments.of(x, y), x.T @ y
    mean, variance = mean_and_variance(estimator, x, y)
    formula = estimator.variance(m)
    assert (mean - exact).norm() <= 1e-12 * exact.norm()
    assert agrees(variance, formula, m)
    assert formula < 1e-20 * m.Q or not agrees(variance, formula * 1.05, m)
    assert formula < 1e-20 * m.Q or not agrees(variance, formula / 1.05, m)
    assert not agrees(variance, WRITTEN[Gaussian](3, estimator.sketch.k(3)) * m.C, m)


def test_gaussian():
    x, y = case(p=4)
    estimator, m = FeatureProjection(0.5), Moments.of(x, y)
    g = torch.Generator().manual_seed(1)
    r = torch.randn(100_000, 4, 2, generator=g, dtype=torch.float64) / 2**0.5
    estimates = r @ (x @ r).mT @ y
    seen = check(estimates, x.T @ y, estimator.variance(m))
    assert rejects(seen, (4 - 1) * m.C / 2)
    assert rejects(seen, 4 * m.C / 2)


@pytest.mark.parametrize("distribution", WRITTEN)
def test_written_out(distribution):
    x, y = pair(5)
    x = torch.cat([x, x.flip(0)], 1)
    m = Moments.of(x, y)
    for r in (1, 2, 3, 6):
        expected = WRITTEN[distribution](6, r) * m.C
        formula = FeatureProjection(r / 6, distribution).variance(m)
        torch.testing.assert_close(formula, expected, rtol=1e-12, atol=1e-12 * m.C.item())
        only_norms = Moments(6, 2, m.x_sq, m.y_sq, C=m.C)  # all that a probe keeps
        torch.testing.assert_close(
            FeatureProjection(r / 6, distribution).variance(only_norms), formula
        )


def test_the_error_does_not_fall_with_the_batch():
    x, y = pair(4)
    twice = Moments.of(
        torch.cat([x, x]), torch.cat([y, y]) / 2
    )  # the same gradient from twice the rows
    m = Moments.of(x, y)
    torch.testing.assert_close(
        FeatureProjection(0.5).variance(twice), FeatureProjection(0.5).variance(m)
    )
    assert Gaussian(0.5).variance(twice) < Gaussian(0.5).variance(m)


def test_what_is_kept():
    x = torch.randn(40, 10, dtype=torch.bfloat16)
    for distribution in (Gaussian, Rademacher, UniformRows, Haar):
        kept = FeatureProjection(0.2, distribution).compress(x, 3)
        assert kept.tensors[0].shape == (40, 2)
        assert (
            kept.nbytes
            == 8 + 40 * 2 * 2
            == FeatureProjection(0.2, distribution).kept_bytes(40, 10, x.dtype)
        )


def test_columns_are_columns():
    x = torch.arange(12.0).reshape(3, 4)
    kept = FeatureProjection(0.5, UniformRows).compress(x, 0).tensors[0]
    assert all(any(torch.allclose(c, 2**0.5 * d) for d in x.T) for c in kept.T)
    assert (
        estimate(FeatureProjection(0.5, UniformRows), x, x, 0).eq(0).all(1).sum() == 2
    )  # rows of Ĝ left out


@pytest.mark.parametrize("wrong", ["gaussian", Gaussian(0.1), int])
def test_bad_distribution(wrong):
    make = getattr(FeatureProjection.__init__, "__wrapped__", FeatureProjection.__init__)
    with pytest.raises(
        TypeError, match="needs the class of a row sketch as its distribution, as in"
    ):
        make(object.__new__(FeatureProjection), 0.1, wrong)


def test_bad_rate():
    with pytest.raises(ValueError, match=r"FeatureProjection needs 0 < rate <= 1, got rate=1\.5"):
        FeatureProjection(1.5)
