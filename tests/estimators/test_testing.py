"""The assertions that others may use for their estimators pass what is right and see what is
not.
"""

from dataclasses import dataclass

import pytest
import torch
from test_enumerate import is_continuous, pair

from sketchvar.estimators import (
    CATALOG,
    CountSketch,
    Estimator,
    Gaussian,
    Rademacher,
    UniformRows,
    build,
    estimate,
)
from sketchvar.estimators.testing import (
    assert_unbiased,
    assert_variance,
    enumerate_outcomes,
    mean_and_variance,
)


@dataclass(frozen=True)
class Off(Estimator):
    """``inner`` with its estimate and its closed form off by factors."""

    inner: Estimator
    mean: float = 1.0
    formula: float = 1.0

    def compress(self, x, seed):
        return self.inner.compress(x, seed)

    def contract(self, kept, y):
        return self.mean * self.inner.contract(kept, y)

    def variance(self, m):
        return self.formula * self.inner.variance(m)

    def kept_bytes(self, n, p, dtype):
        return self.inner.kept_bytes(n, p, dtype)


def test_every_outcome_of_a_right_estimator():
    for estimator in (CountSketch(0.5), Rademacher(0.5), UniformRows(0.5)):
        assert_unbiased(estimator, *pair(4))
        assert_variance(estimator, *pair(4))


@pytest.mark.parametrize("factor", [1.0001, 0.9999])
def test_every_outcome_of_a_wrong_estimator(factor):
    with pytest.raises(AssertionError, match=r"Off.* is biased: ‖E Ĝ − G‖ is"):
        assert_unbiased(Off(CountSketch(0.5), mean=factor), *pair(4))
    with pytest.raises(AssertionError, match=r"Off.*: E‖Ĝ − G‖² is .*, not"):
        assert_variance(Off(CountSketch(0.5), formula=factor), *pair(4))


def even_pair():
    """Rows that are much alike in size, so that every outcome errs by much the same."""
    x, y = pair(4)
    return torch.nn.functional.normalize(x) + torch.eye(4, 3), torch.eye(4, 2) + y / y.norm()


def test_draws_of_a_right_and_of_a_wrong_estimator():
    x, y = even_pair()
    assert_unbiased(Gaussian(0.5), x, y, draws=400)
    with pytest.raises(AssertionError, match=r"is biased: an entry of its mean is at z ="):
        assert_unbiased(Off(Gaussian(0.5), mean=1.3), x, y, draws=400)
    assert_variance(UniformRows(0.5), x, y, draws=400)
    for factor in (1.05, 1 / 1.05):
        with pytest.raises(AssertionError, match=r"measured .*, not .*: z ="):
            assert_variance(Off(UniformRows(0.5), formula=factor), x, y, draws=400)
    with pytest.raises(AssertionError, match=r"draws=20 are too few; take \d+"):
        assert_variance(UniformRows(0.5), x, y, draws=20)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.endswith("-both") else name
        for name in CATALOG
    ],
)
def test_what_is_drawn_is_an_outcome(name, unchecked):
    """The choices that are enumerated are those of the real generator, in number and kind."""
    x, y = pair(3)
    estimator = build(name, 0.6, y.square().sum(1))
    if is_continuous(estimator, x, y):
        pytest.skip("has no end of outcomes")
    outcomes = torch.stack([g for _, g in enumerate_outcomes(estimator, x, y)])
    drawn = [estimate(estimator, x, y, seed) for seed in range(10)]
    for g in drawn:
        assert torch.isclose(outcomes, g, rtol=1e-9).all((1, 2)).any()
    assert not torch.isclose(outcomes, drawn[0] + 0.1, rtol=1e-9).all((1, 2)).any()  # must fail


def test_what_cannot_be_enumerated_says_so():
    x, y = pair(3)
    with pytest.raises(TypeError, match=r"no end of outcomes; test by draws, as in draws="):
        assert_unbiased(Gaussian(0.5), x, y)
    with pytest.raises(ValueError, match=r"got a pair of torch.float32; use float64"):
        assert_unbiased(CountSketch(0.5), x.float(), y.float())

    class Own(Off):
        def contract(self, kept, y):
            g = torch.Generator().manual_seed(kept.seed)
            return super().contract(kept, y) * torch.rand((), generator=g)

    with pytest.raises(ValueError, match=r"cannot be enumerated; draw by the methods of"):
        assert_unbiased(Own(CountSketch(0.5)), x, y)


def test_enumeration_leaves_nothing_behind():
    x, y = pair(3)
    before = estimate(CountSketch(0.5), x, y, 1)
    outcomes = enumerate_outcomes(CountSketch(0.5), x, y)
    next(outcomes)  # and the rest is never asked for
    assert torch.equal(estimate(CountSketch(0.5), x, y, 1), before)
    mean, _ = mean_and_variance(CountSketch(0.5), x, y)
    torch.testing.assert_close(mean, x.T @ y)
