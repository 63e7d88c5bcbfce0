"""``empirical`` and ``Measured``: right numbers, honest errors, and a biased estimator is
caught.
"""

from dataclasses import dataclass

import pytest
import torch

from sketchvar.estimators import (
    Estimator,
    Exact,
    Gaussian,
    Measured,
    UniformRows,
    empirical,
    estimate,
)
from sketchvar.estimators.seeds import fold


@dataclass(frozen=True)
class Biased(Estimator):
    """A Gaussian sketch times ``factor``: biased unless it is 1."""

    inner: Gaussian
    factor: float

    def compress(self, x, seed):
        return self.inner.compress(x, seed)

    def contract(self, kept, y):
        return self.inner.contract(kept, y) * self.factor

    def variance(self, m):
        return (
            self.factor**2 * self.inner.variance(m) + (self.factor - 1) ** 2 * m.C
        )  # the mean square

    def kept_bytes(self, n, p, dtype):
        return self.inner.kept_bytes(n, p, dtype)


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(20, d, generator=g, dtype=torch.float64) + 1 for d in (4, 3))


def test_against_a_naive_loop(pair):
    x, y = pair
    e = Gaussian(0.5)
    seen = empirical(e, x, y, 50, seed=3)
    estimates = torch.stack([estimate(e, x, y, fold(3, i)) for i in range(50)])
    errors = (estimates - x.T @ y).square().sum((1, 2))
    torch.testing.assert_close(seen.mean.value, estimates.mean(0))
    torch.testing.assert_close(seen.mean.stderr, estimates.std(0) / 50**0.5)
    torch.testing.assert_close(seen.variance.value, errors.mean())
    torch.testing.assert_close(seen.variance.stderr, errors.std() / 50**0.5)
    assert seen.mean.count == seen.variance.count == 50


def test_reproducible(pair):
    first, again, other = (
        empirical(Gaussian(0.5), *pair, 10, seed=s).variance.value for s in (1, 1, 2)
    )
    assert first == again != other


def test_bias_is_caught(pair):
    """At 4.5 standard errors; the same seeds with a factor of 1 pass, so it is the bias that is
    seen.
    """
    x, y = pair
    exact = x.T @ y
    honest = empirical(Biased(Gaussian(0.5), 1.0), x, y, 2000, seed=1)
    biased = empirical(Biased(Gaussian(0.5), 1.1), x, y, 2000, seed=1)
    assert honest.mean.z(exact).abs().max() < 4.5
    assert biased.mean.z(exact).abs().max() > 4.5


def test_stderr_is_the_spread_of_the_mean(pair):
    """Over 200 repetitions the average z² is that of Student's t with 39 degrees, 39/37, within 4.5
    standard errors.
    """
    x, y = pair
    z = torch.stack(
        [empirical(UniformRows(0.5), x, y, 40, seed=s).mean.z(x.T @ y) for s in range(200)]
    )
    each = z.square().mean((1, 2))
    room = 4.5 * each.std() / 200**0.5
    assert (each.mean() - 39 / 37).abs() < room
    assert (each.mean() - 2 * 39 / 37).abs() > room  # must fail: a stderr too small by √2


def test_exact_has_no_spread(pair):
    seen = empirical(Exact(), *pair, 5, seed=1)
    assert seen.variance.value == 0 and seen.variance.stderr == 0
    assert seen.variance.z(0.0) == 0
    assert (seen.mean.z(pair[0].T @ pair[1]) == 0).all()


def test_narrow_dtypes_are_summed_in_float64(pair):
    x, y = (t.half() for t in pair)
    seen = empirical(Gaussian(0.5), x, y, 20, seed=1)
    assert seen.mean.value.dtype == seen.variance.value.dtype == torch.float64


def test_z():
    m = Measured(torch.tensor([3.0, 1.0, 1.0]), torch.tensor([0.5, 0.0, 0.0]), 10)
    assert m.z(torch.tensor([2.0, 1.0, 0.0])).tolist() == [2.0, 0.0, torch.inf]
    assert m.z(1.0)[0] == 4


@pytest.mark.parametrize("draws", [1, 0, -3])
def test_too_few_draws(pair, draws):
    with pytest.raises(
        ValueError, match=f"at least 2 draws for a standard error, got draws={draws}"
    ):
        empirical(Gaussian(0.5), *pair, draws, seed=1)


def test_pairs_are_checked(pair):
    with pytest.raises(ValueError, match="same number of rows"):
        empirical(Gaussian(0.5), pair[0], pair[1][1:], 5, seed=1)
    with pytest.raises(TypeError, match="one floating dtype"):
        empirical(Gaussian(0.5), pair[0].long(), pair[1].long(), 5, seed=1)
