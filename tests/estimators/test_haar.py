"""Haar: a z-test through ``apply`` over uniformly distributed subspaces, and the edges of its
formula.
"""

import pytest
import torch
from support.zscore import case, check, rejects

from sketchvar.estimators import Gaussian, Haar, Moments, RowSketch, estimate

DRAWS = 60_000


@pytest.mark.parametrize(("n", "rate"), [(6, 0.5), (3, 0.3), (2, 0.5)])
def test_mean_and_variance(n, rate):
    x, y = case(n=n)
    estimator, m = Haar(rate), Moments.of(x, y)
    k = estimator.k(n)
    g = torch.Generator().manual_seed(1)
    normal = torch.randn(DRAWS, n, k, generator=g, dtype=torch.float64)
    s = torch.linalg.qr(normal).Q
    estimates = torch.vmap(lambda s: estimator.apply(s, x).T @ estimator.apply(s, y))(s)
    seen = check(estimates, x.T @ y, estimator.variance(m))
    if n > 2:
        assert rejects(seen, Gaussian(rate).variance(m))
        assert rejects(seen, Gaussian(rate).variance(m) * (n - k) / (n - 1))


def test_draws_are_orthonormal_and_reproducible():
    s = Haar(0.3).draw(20, 3, torch.device("cpu"))
    torch.testing.assert_close(s.T @ s, torch.eye(6, dtype=torch.float64))
    assert torch.equal(s, Haar(0.3).draw(20, 3, torch.device("cpu")))
    first = torch.stack(
        [Haar(0.3).draw(4, seed, torch.device("cpu"))[:, 0] for seed in range(4000)]
    )
    outer = first.T @ first / 4000
    assert (outer - torch.eye(4, dtype=torch.float64) / 4).abs().max() < 4.5 * (
        1 / 12
    ) ** 0.5 / 4000**0.5


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_all_rows_are_exact(n):
    x, y = case(n=n)
    assert isinstance(Haar(1.0), RowSketch)
    assert Haar(1.0).variance(Moments.of(x, y)) == 0
    torch.testing.assert_close(estimate(Haar(1.0), x, y, 0), x.T @ y)
