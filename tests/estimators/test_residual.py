"""Coarse parts with and without the rest, shrinking, principal features and sampled entries."""

import pytest
import torch
from test_enumerate import agrees, pair

from sketchvar.estimators import (
    CountSketch,
    FeatureProjection,
    Generators,
    Haar,
    HotColumns,
    LargestEntries,
    LowRank,
    Moments,
    NearestRounding,
    NormColumns,
    PrincipalFeatures,
    Residual,
    SampledEntries,
    Shrunk,
    SubtokenDirections,
    TopRows,
    UniformRows,
    empirical,
    estimate,
)
from sketchvar.estimators.coarse import principal_directions
from sketchvar.estimators.testing import mean_and_variance

COARSE = [
    LargestEntries, HotColumns, LowRank, Generators, NearestRounding, SubtokenDirections
]  # fmt: skip


@pytest.mark.parametrize("coarse", COARSE)
@pytest.mark.parametrize("inner", [CountSketch, UniformRows])
def test_what_is_left_is_estimated(coarse, inner):
    x, y = pair(4)
    estimator, m = Residual(0.4, coarse, inner), Moments.of(x, y)
    mean, variance = mean_and_variance(estimator, x, y)
    assert (mean - m.G).norm() <= 1e-12 * m.Q.sqrt()
    assert agrees(variance, estimator.variance(m), m)
    assert not agrees(variance, estimator.variance(m) * 1.05, m)  # must fail, and so must
    assert not agrees(variance, inner(0.4).variance(m), m)  # the form for all of X


@pytest.mark.parametrize("coarse", COARSE)
def test_what_is_forgotten_is_bias(coarse):
    x, y = pair(6)
    estimator, m = Residual(0.4, coarse), Moments.of(x, y)
    error = (estimate(estimator, x, y, 0) - m.G).square().sum()
    assert estimator.traits.biased and not Residual(0.4, coarse, CountSketch).traits.biased
    assert agrees(error, estimator.bias_sq(m), m) and error > 0
    assert estimator.variance(m) == estimator.bias_sq(m)


def test_low_rank_is_near_the_best():
    """Against the singular value decomposition: what is left is least over all of rank r."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 12, generator=g, dtype=torch.float64) * 2.0 ** -torch.arange(12)
    part = LowRank(0.25)
    left = (x - part.rebuild(part.keep(x), (40, 12), x.dtype)).square().sum()
    best = torch.linalg.svdvals(x)[3:].square().sum()
    assert best <= left < 1.01 * best
    q = principal_directions(x, 3)
    torch.testing.assert_close(q.T @ q, torch.eye(3, dtype=torch.float64))


def test_generators_find_rows_on_a_line():
    rows = torch.tensor([[1.0, 2], [-3, -6], [4, -2]])
    part = Generators(0.7)
    torch.testing.assert_close(part.rebuild(part.keep(rows), (3, 2), rows.dtype), rows)


@pytest.mark.parametrize(("rate", "levels"), [(0.03, 1), (0.1, 3), (0.25, 255)])
def test_nearest_rounding_by_hand(rate, levels):
    """Against x − min rounded in units of the row's range, and its bias."""
    x, y = pair(6)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    step = (high - low) / levels
    by_hand = low + ((x - low) / step).round() * step
    part = NearestRounding(rate)
    torch.testing.assert_close(part.rebuild(part.keep(x), (6, 3), x.dtype), by_hand)
    bias_sq = ((by_hand - x).T @ y).square().sum()
    torch.testing.assert_close(Residual(rate, NearestRounding).bias_sq(Moments.of(x, y)), bias_sq)


def test_directions_of_sub_tokens():
    """Against singular value decompositions; sub-tokens on a line are kept as they are."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(30, 8, generator=g, dtype=torch.float64)
    x[:, 0] *= 10
    part = SubtokenDirections(0.25)
    error = x - part.rebuild(part.keep(x), (30, 8), x.dtype)
    best = sum(torch.linalg.svdvals(half)[1:].square().sum() for half in x.split(4, 1))
    assert best <= error.square().sum() < 1.3 * best
    line = torch.outer(x[:, 0], torch.arange(1.0, 8, dtype=torch.float64))  # 7: the last is short
    torch.testing.assert_close(part.rebuild(part.keep(line), (30, 7), x.dtype), line)


@pytest.mark.parametrize("rate", [0.3, 0.6])
def test_norm_columns(rate):
    x, y = pair(4)
    x[:, 1] *= 3
    estimator, m = NormColumns(rate), Moments.of(x, y)
    mean, variance = mean_and_variance(estimator, x, y)
    assert (mean - m.G).norm() <= 1e-12 * m.Q.sqrt()
    assert agrees(variance, estimator.variance(m), m)
    assert not agrees(variance, estimator.variance(m) * 1.05, m)  # must fail, and so must
    assert not agrees(variance, FeatureProjection(rate, UniformRows).variance(m), m)
    assert NormColumns(1.0).variance(m) == 0


@pytest.mark.parametrize("factor", [1.0, 0.8, 0.3])
def test_shrunk(factor):
    x, y = pair(4)
    estimator, m = Shrunk(CountSketch(0.5), factor), Moments.of(x, y)
    mean, mean_square = mean_and_variance(estimator, x, y)
    assert agrees(mean_square, estimator.variance(m), m)
    assert agrees((mean - m.G).square().sum(), estimator.bias_sq(m), m)
    assert factor == 1 or not agrees(mean_square, CountSketch(0.5).variance(m), m)
    assert estimator.traits.biased == (factor < 1)


def test_shrinking_is_best_where_an_oracle_says():
    m = Moments.of(*pair(6))
    v = CountSketch(0.2).variance(m)
    best = (m.C / (m.C + v)).item()
    errors = [Shrunk(CountSketch(0.2), best * f).variance(m) for f in (0.9, 1, 1.1)]
    assert errors[1] < min(errors[0], errors[2], v)


@pytest.mark.parametrize("rate", [0.3, 0.6])
def test_sampled_entries(rate):
    x, y = pair(4, zero_row=True)
    x = x[:, :2]
    estimator, m = SampledEntries(rate), Moments.of(x, y)
    mean, variance = mean_and_variance(estimator, x, y)
    assert (mean - m.G).norm() <= 1e-12 * m.Q.sqrt()
    assert agrees(variance, estimator.variance(m), m)
    assert not agrees(variance, estimator.variance(m) * 1.05, m)
    assert SampledEntries(1.0).variance(m) == 0


@pytest.mark.parametrize(
    "estimator", [PrincipalFeatures(0.5), FeatureProjection(0.3, Haar)], ids=str
)
def test_features_by_draws(estimator):
    """1,500 draws; 4.5 standard errors, which a true formula leaves for 7 of 10⁶ seeds."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(12, d, generator=g, dtype=torch.float64) + 0.5 for d in (8, 6))
    m = Moments.of(x, y)
    seen = empirical(estimator, x, y, 1500, seed=0)
    assert seen.mean.z(m.G).abs().max() < 4.5
    assert seen.variance.z(estimator.variance(m)).abs() < 4.5
    for wrong in (1.2, 1 / 1.2):  # must fail
        assert seen.variance.z(estimator.variance(m) * wrong).abs() > 4.5


def test_principal_features_are_exact_at_rate_1_and_where_nothing_is_left():
    x, y = pair(6)
    m = Moments.of(x, y)
    assert PrincipalFeatures(1.0).variance(m) == 0
    torch.testing.assert_close(estimate(PrincipalFeatures(1.0), x, y, 0), m.G)
    flat = torch.outer(x[:, 0], x[0])
    flat_m = Moments.of(flat, y)
    assert PrincipalFeatures(0.67).variance(flat_m) < 1e-12 * flat_m.C


def test_bad_input():
    with pytest.raises(ValueError, match="Residual needs an unbiased estimator inside, got TopR"):
        Residual(0.1, LowRank, TopRows)
    with pytest.raises(ValueError, match=r"Shrunk needs 0 < factor <= 1, got factor=1\.5"):
        Shrunk(CountSketch(0.1), 1.5)
    with pytest.raises(ValueError, match="LowRank needs 0 < rate <= 1, got rate=2"):
        LowRank(2.0)


@pytest.mark.parametrize("coarse", [LargestEntries, LowRank, Generators])
def test_a_part_that_keeps_more_than_x_is_refused(coarse):
    x, y = torch.randn(2000, 64), torch.randn(2000, 3)
    refused = rf"{coarse.__name__}\(rate=1.0\) keeps \d+ bytes of an X of 512000, 2000 × 64"
    with pytest.raises(ValueError, match=refused):
        estimate(Residual(1.0, coarse, CountSketch), x, y, 0)
    assert estimate(Residual(0.4, coarse, CountSketch), x, y, 0).isfinite().all()
    assert estimate(Residual(1.0, coarse), x[:4, :8], y[:4], 0).isfinite().all()  # small: let it be
