"""The least rate that is enough, against trying them all."""

import pytest
import torch

from sketchvar.estimators import CountSketch, Gaussian, Moments, NormRows, UniformRows, rate_for


def moments():
    g = torch.Generator().manual_seed(0)
    return Moments.of(torch.randn(40, 5, generator=g), torch.randn(40, 3, generator=g) + 0.3)


@pytest.mark.parametrize("make", [UniformRows, NormRows, CountSketch])
@pytest.mark.parametrize("ratio", [0.1, 1.0, 5.0])
def test_the_least_of_all(make, ratio):
    m = moments()
    by_row = (m.n * m.D - m.C) / (m.n - 1)
    enough = [
        k / 40 for k in range(1, 41) if make(k / 40).variance(m) <= ratio * by_row * (1 + 1e-9)
    ]
    assert rate_for(make, m, ratio) == min(enough)
    assert rate_for(make, m, 2 * ratio, by_row / 2) == min(enough)


def test_uniform_rows_are_a_smaller_batch():
    """(n − k)/k ≤ ratio, so k = n/(1 + ratio)."""
    assert rate_for(UniformRows, moments(), 1.0) == 0.5
    assert rate_for(UniformRows, moments(), 3.0) == 0.25


def test_no_rate_is_enough():
    with pytest.raises(ValueError, match=r"no rate of Gaussian\(rate=1.0\) brings its variance to"):
        rate_for(Gaussian, moments(), 1e-6)
