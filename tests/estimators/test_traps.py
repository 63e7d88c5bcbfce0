"""Inputs that have bitten somebody: empty, single, zero, huge, not finite, and batches whose size
changes.
"""

import pytest
import torch

from sketchvar.estimators import (
    CATALOG,
    Estimator,
    Moments,
    RowSketch,
    UniformRows,
    build,
    estimate,
)
from sketchvar.estimators.catalog import ORACLES
from sketchvar.estimators.sampling import ImportanceRows
from sketchvar.estimators.spelling import takes_rate

UNSEEN = "where rows are left out without a look, the class says traits = Traits(skips_unseen=True)"


@pytest.fixture(params=CATALOG)
def name(request):
    return request.param


def pair(n=13, p=5, q=3, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(n, d, generator=g).to(dtype) for d in (p, q))


def of(name, y, rate=0.4) -> Estimator:
    return build(name, rate, y.double().square().sum(1))


def variance(e, x, y):
    try:
        return e.variance(Moments.of(x, y))
    except NotImplementedError:
        return torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_no_rows(name, rate):
    x, y = pair(0)
    e = of(name, y, rate)
    assert torch.equal(estimate(e, x, y, 1), torch.zeros(5, 3))
    assert variance(e, x, y) == 0


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_one_row(name, rate):
    x, y = pair(1)
    e = of(name, y, rate)
    result = estimate(e, x, y, 1)
    assert result.shape == (5, 3) and result.isfinite().all()
    assert variance(e, x, y) >= 0
    if variance(e, x, y) == 0 and isinstance(e, RowSketch | ImportanceRows):
        torch.testing.assert_close(result, x.T @ y)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (1, 4), (4, 1), (0, 3), (3, 0)])
def test_thin_matrices(name, p, q):
    x, y = pair(13, p, q)
    assert estimate(of(name, y), x, y, 1).shape == (p, q)


def test_at_least_one_row_and_at_most_all_are_kept(name):
    x, y = pair()
    for rate, k in [(1e-9, 1), (0.01, 1), (0.4, 5), (1.0, 13)]:
        e = of(name, y, rate)
        assert estimate(e, x, y, 1).isfinite().all()
        assert variance(e, x, y).isfinite() and variance(e, x, y) >= 0
        if isinstance(e, RowSketch | ImportanceRows):
            assert e.compress(x, 1).tensors[0].shape == (k, 5)


def test_equal_rows(name):
    """What is left of n·D − C, Q + C − 2D and the like is rounding, of either sign."""
    for n in (1, 2, 3, 40):
        x, y = (t[:1].expand(n, -1).contiguous() for t in pair())
        e = of(name, y)
        assert estimate(e, x, y, 1).shape == (5, 3)
        assert variance(e, x, y) >= 0


def test_number_of_rows_changes_every_step(name):
    e = of(name, pair()[1])
    for n in (13, 7, 64, 1, 13):
        x, y = pair(n)
        if name in ORACLES and n != 13:
            with pytest.raises(ValueError, match=f"built for 13 rows and met {n}"):
                estimate(e, x, y, 1)
        else:
            assert estimate(e, x, y, 1).shape == (5, 3)


def test_zero_rows(name):
    x, y = pair()
    x[:6] = 0
    y[4:9] = 0
    e = of(name, y)
    assert all(estimate(e, x, y, s).isfinite().all() for s in range(20))
    assert variance(e, x, y).isfinite() and variance(e, x, y) >= 0


@pytest.mark.parametrize("which", ["x", "y", "both"])
def test_all_zero(name, which):
    x, y = pair()
    x, y = x * (which == "y"), y * (which == "x")
    e = of(name, y)
    assert torch.equal(estimate(e, x, y, 1).abs(), torch.zeros(5, 3))
    assert variance(e, x, y) == 0


def test_float16_whose_squares_overflow(name):
    x, y = pair(dtype=torch.float16)
    x, y = x * 300, y / 300
    assert x.square().sum(1).isinf().any()
    e = of(name, y)
    assert all(estimate(e, x, y, s).isfinite().all() for s in range(20))
    wide = variance(e, x.double(), y.double())
    torch.testing.assert_close(variance(e, x, y), wide, rtol=1e-4, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_not_finite_x_shows_and_never_raises(name, bad):
    """A training loop under GradScaler meets Inf in ordinary life, and looks for it in the
    gradients.
    """
    x, y = pair()
    x[8, 2] = bad
    e = of(name, y)
    results = [estimate(e, x, y, s) for s in range(20)]
    if not e.traits.skips_unseen:
        assert not any(r.isfinite().all() for r in results), UNSEEN
    variance(e, x, y)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_not_finite_y_shows_where_rows_are_mixed(name, bad):
    x, y = pair()
    y[8, 2] = bad
    e = of(name, y)
    results = [estimate(e, x, y, s) for s in range(20)]
    if name in ORACLES or (isinstance(e, RowSketch) and not e.traits.skips_unseen):
        assert not any(r.isfinite().all() for r in results), UNSEEN
    variance(e, x, y)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan"), float("inf")])
def test_rates_outside_0_to_1(name, rate):
    if not takes_rate(name):
        pytest.skip("has no rate")
    with pytest.raises(ValueError, match=rf"\w+ needs 0 < rate <= 1, got rate={rate}"):
        of(name, pair()[1], rate)


def test_a_rate_that_is_no_number():
    from sketchvar.estimators.estimator import check_rate

    unchecked = getattr(
        check_rate, "__wrapped__", check_rate
    )  # beartype, which only tests run, would object first
    with pytest.raises(ValueError, match=r"needs 0 < rate <= 1, got rate=0\.1"):
        unchecked(UniformRows(0.5), "0.1")


BAD_PAIRS = {
    "integers": (
        (4, 2),
        (4, 3),
        torch.int64,
        torch.int64,
        TypeError,
        r"one floating dtype.*int64.*convert",
    ),
    "two dtypes": (
        (4, 2),
        (4, 3),
        torch.float32,
        torch.float16,
        TypeError,
        "float32 and torch.float16",
    ),
    "rows differ": (
        (4, 2),
        (5, 3),
        None,
        None,
        ValueError,
        r"same number of rows, got shapes \(4, 2\) and \(5, 3\)",
    ),
    "a vector": ((4,), (4, 3), None, None, ValueError, r"must be matrices.*\(4,\)"),
    "a batch of matrices": ((2, 4, 2), (2, 4, 3), None, None, ValueError, r"flatten\(0, -2\)"),
    "a batch of rows": ((4, 2), (4, 3, 1), None, None, ValueError, "must be matrices"),
}


@pytest.mark.parametrize("what", BAD_PAIRS)
def test_pairs_that_do_not_fit(name, what):
    x_shape, y_shape, x_dtype, y_dtype, error, message = BAD_PAIRS[what]
    x, y = torch.ones(x_shape, dtype=x_dtype), torch.ones(y_shape, dtype=y_dtype)
    with pytest.raises(error, match=message):
        estimate(of(name, pair(4)[1]), x, y, 1)
