"""StochasticRounding: every way to round a small case, packing, bytes, constant rows, and what
rotation is for.
"""

import pytest
import torch
from test_enumerate import agrees, pair

from sketchvar.estimators import Moments, StochasticRounding, estimate
from sketchvar.estimators.kernels import count_steps
from sketchvar.estimators.kernels.hadamard import hadamard_matrix
from sketchvar.estimators.kernels.rounding import pack, unpack
from sketchvar.estimators.quantize import BITS, rotate_back, rotate_features
from sketchvar.estimators.testing import mean_and_variance


def wide_pair(n=3, p=4):
    g = torch.Generator().manual_seed(n * p)
    return torch.randn(n, p, generator=g, dtype=torch.float64), torch.randn(
        n, 2, generator=g, dtype=torch.float64
    )


# (bits, group, rotate, n, p)
CASES = [
    (1, None, False, 3, 4),
    (2, None, False, 3, 4),
    (4, None, False, 2, 5),
    (8, None, False, 3, 4),
]
CASES += [
    (1, 3, False, 2, 6),
    (2, 3, False, 3, 6),
    (1, None, True, 3, 4),
    (2, 2, True, 2, 6),
    (8, None, True, 2, 3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_enumeration(case):
    bits, group, rotate, n, p = case
    x, y = wide_pair(n, p)
    estimator, m, exact = StochasticRounding(bits, group, rotate), Moments.of(x, y), x.T @ y
    mean, variance = mean_and_variance(estimator, x, y)
    formula = estimator.variance(m)
    assert formula > 0
    assert (mean - exact).norm() <= 1e-12 * exact.norm()
    assert agrees(variance, formula, m)
    assert not agrees(variance, formula * 1.05, m)
    assert not agrees(variance, formula / 1.05, m)
    _, step = estimator.grid(rotate_features(x) if rotate else x)
    each = step.square().sum(1) * estimator.groups(p)[1] / 6
    assert not agrees(variance, m.y_sq @ each, m)  # as if fractions were uniform in [0, 1)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize("bits", BITS)
def test_values_stay_on_a_grid_that_holds_them(bits, dtype):
    """Were the largest value above the last grid point, rounding could not be unbiased."""
    g = torch.Generator().manual_seed(0)
    x = (torch.randn(300, 7, generator=g) * torch.randn(300, 1, generator=g).mul(3).exp() + 5).to(
        dtype
    )
    low, step = StochasticRounding(bits).grid(x)
    steps = count_steps(x, low, step)
    top = (low.double() + step.double() * (2**bits - 1))[:, 0]
    assert (
        top >= x.double().amax(1) - 2 * torch.finfo(low.dtype).eps * x.double().abs().amax(1)
    ).all()
    assert (steps >= 0).all() and (steps <= (2**bits - 1) * (1 + 1e-6)).all()
    kept = StochasticRounding(bits).compress(x, 0)
    error = (StochasticRounding(bits).restore(kept, torch.float64) - x.double()).abs()
    assert (error <= step.double() * (1 + 1e-5)).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("p", [1, 3, 8, 13])
def test_packing(bits, p):
    levels = torch.randint(2**bits, (5, p), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    packed = pack(levels, bits)
    assert packed.dtype == torch.uint8 and packed.shape == (5, -(-p * bits // 8))
    assert torch.equal(unpack(packed, bits, p), levels)


@pytest.mark.parametrize(
    ("bits", "group", "expected"), [(1, None, 8), (2, None, 16), (4, 16, 32), (8, 32, 64)]
)
def test_bytes_are_counted_by_hand(bits, group, expected):
    """n = 10 rows of p = 64: packed bytes of each row, then the least value and the step of each
    group in float32.
    """
    groups = 64 // (group or 64)
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(10, 64).to(dtype)
        estimator = StochasticRounding(bits, group)
        assert estimator.kept_bytes(10, 64, dtype) == 8 + 10 * (expected + groups * 8)
        assert estimator.compress(x, 0).nbytes == 8 + 10 * (expected + groups * 8)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.5, -7.25])
def test_constant_rows_are_exact(value, rotate):
    x, y = torch.full((6, 8), value), torch.randn(6, 3)
    estimator = StochasticRounding(2, rotate=rotate)
    if not rotate:
        assert estimator.variance(Moments.of(x, y)) == 0
        assert torch.equal(estimator.restore(estimator.compress(x, 0), torch.float32), x)
    assert estimate(estimator, x, y, 0).isfinite().all()


def test_values_on_the_grid_are_exact():
    x = torch.tensor([[0.0, 1, 2, 3], [3, 0, 0, 3], [-10, 5, -5, 0]])
    estimator, y = StochasticRounding(2), torch.randn(3, 2)
    assert estimator.variance(Moments.of(x, y)) == 0
    assert all(
        torch.equal(estimator.restore(estimator.compress(x, s), torch.float32), x) for s in range(5)
    )
    whole = torch.arange(256.0)[None]
    assert torch.equal(
        StochasticRounding(8).restore(StochasticRounding(8).compress(whole, 0), torch.float32),
        whole,
    )


@pytest.mark.parametrize("low", [1e-45, 1e-38, 1e30])
def test_tiny_and_huge_ranges(low):
    x, y = torch.tensor([[0.0, low, low, low / 2]]), torch.ones(1, 1)
    assert all(
        estimate(StochasticRounding(b), x, y, s).isfinite().all() for b in BITS for s in range(5)
    )


@pytest.mark.parametrize("p", [1, 3, 4, 6, 12, 64])
def test_rotation_is_orthonormal(p):
    x = torch.randn(5, p, dtype=torch.float64)
    torch.testing.assert_close(rotate_back(rotate_features(x)), x)
    torch.testing.assert_close(rotate_features(x).norm(dim=1), x.norm(dim=1))


def test_rotation_mixes_blocks_by_hadamard():
    x = torch.randn(2, 12, dtype=torch.float64)
    signs = (
        rotate_features(torch.eye(12, dtype=torch.float64))[::4].sum(0).sign()
    )  # row 0 of each block of H is all ones
    first = rotate_features(torch.eye(12, dtype=torch.float64))
    expected = torch.block_diag(*[hadamard_matrix(4, torch.float64, torch.device("cpu")) / 2] * 3)
    torch.testing.assert_close(first.abs(), expected.abs())
    assert signs.abs().sum() == 12
    torch.testing.assert_close(rotate_features(x), x @ first)


def test_rotation_tames_an_outlier():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 64, generator=g), torch.randn(20, 4, generator=g)
    x[:, 5] *= 100
    m = Moments.of(x, y)
    assert StochasticRounding(4, rotate=True).variance(m) < 0.5 * StochasticRounding(4).variance(m)


def test_smaller_groups_and_more_bits_are_better():
    x, y = wide_pair(30, 16)
    m = Moments.of(x, y)
    by_bits = [StochasticRounding(b).variance(m).item() for b in BITS]
    by_group = [StochasticRounding(2, group).variance(m).item() for group in (4, 8, 16)]
    assert by_bits == sorted(by_bits, reverse=True) and by_group == sorted(by_group)


@pytest.mark.parametrize("bits", [0, 3, 16, -1, True])
def test_bad_bits(bits):
    with pytest.raises(
        ValueError, match=f"StochasticRounding needs bits of 1, 2, 4 or 8.*got bits={bits}"
    ):
        StochasticRounding(bits)


def test_bad_groups():
    with pytest.raises(ValueError, match=r"needs group >= 1 features.*got group=0"):
        StochasticRounding(2, group=0)
    x, y = pair(4)
    message = r"needs a group that divides the number of features, got group=2 for p=3; 1 would do"
    for use in (
        lambda e: e.compress(x, 0),
        lambda e: e.kept_bytes(4, 3, torch.float32),
        lambda e: e.variance(Moments.of(x, y)),
    ):
        with pytest.raises(ValueError, match=message):
            use(StochasticRounding(2, group=2))


def test_closed_form_does_not_depend_on_chunks():
    x, y = wide_pair(300, 8)
    estimator = StochasticRounding(2)
    whole = torch.cat([estimator.row_errors(row[None]) for row in x])
    torch.testing.assert_close(estimator.variance(Moments.of(x, y)), y.square().sum(1) @ whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_eight_bits_are_not_rounded_again_in_half_precision(dtype):
    """Were X̂ rounded to the nearest of its dtype, the mean of all draws would be off: of each entry
    there are two values, by which the bias is known.
    """
    g = torch.Generator().manual_seed(0)
    x = (torch.randn(256, 64, generator=g) + 1).to(dtype)
    y = torch.randn(256, 8, generator=g).to(dtype)
    estimator = StochasticRounding(8)
    low, step = (t.double() for t in estimator.grid(x))
    steps = (x.double() - low) / step
    up = steps - steps.floor()
    below, above = (low + step * (steps.floor() + i) for i in (0, 1))

    def bias_sq(kept_as):
        mean = (1 - up) * kept_as(below) + up * kept_as(above)
        return ((mean - x.double()).T @ y.double()).square().sum()

    def in_two(t):
        high = t.to(dtype).double()
        return high + (t - high).to(dtype).double()

    variance = estimator.variance(Moments.of(x, y))
    assert bias_sq(in_two) <= 1e-5 * variance
    if dtype == torch.bfloat16:
        assert bias_sq(lambda t: t.to(dtype).double()) >= 0.01 * variance  # as it was

    kept = estimator.compress(x, 0)
    exact = estimator.restore(kept, torch.float64).T @ y.double()
    got = sum((p.double().T @ y.double() for p in estimator.parts(kept, dtype)), torch.zeros(()))
    once = estimator.restore(kept, dtype).double().T @ y.double()
    assert (got - exact).norm() <= 0.02 * (once - exact).norm()
    result = estimator.contract(kept, y)
    assert result.dtype == dtype
    assert (result.double() - exact).norm() <= 2 * torch.finfo(dtype).eps * exact.norm()
