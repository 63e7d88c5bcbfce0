"""What every variance must obey, whatever the data: scaling, rotation, permutation, and more rows
never being worse.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchvar.estimators import CATALOG, Moments, build

TRAITS = {name: build(name, 0.5, torch.ones(1)).traits for name in CATALOG}
# at rate 1, as nothing is drawn twice
NOTHING_LOST = ["bernoulli-rows", "centered(countsketch)", "countsketch", "dct", "feature-columns"]
NOTHING_LOST += ["haar", "norm-rows", "optimal-rows", "priority-rows", "srht", "top-rows"]
NOTHING_LOST += ["uniform-rows", "winner-take-all-rows", "winner-take-all-rows-iid"]

bounded = settings(derandomize=True, max_examples=20, deadline=None, database=None)
rates = st.floats(0.01, 1.0)


@st.composite
def pairs(draw):
    """Rows of very different sizes, some of them zero, with and without a common direction."""
    n, p, q = draw(st.integers(1, 12)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    g = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    shift = draw(st.sampled_from([0.0, 1.0, 10.0]))
    sizes = st.lists(st.sampled_from([0.0, 0.01, 1.0, 1.0, 50.0]), min_size=n, max_size=n)
    return tuple(
        (torch.randn(n, d, generator=g, dtype=torch.float64) + shift)
        * torch.tensor(draw(sizes)).double()[:, None]
        for d in (p, q)
    )


def variance(name, rate, x, y):
    try:
        return build(name, rate, y.square().sum(1)).variance(Moments.of(x, y))
    except NotImplementedError:
        pytest.skip("has no closed form")


def close(a, b, x, y):
    """Up to the rounding of the largest term a formula has, n · Q."""
    room = 1e-12 * len(x) * x.square().sum() * y.square().sum()
    return bool((a - b).abs() <= 1e-10 * b.abs() + room)


def rotation(d, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q


# scales of few bits do not follow X, but for powers of two
OWN_SCALES = {"mxfp4", "nvfp4", "nvfp4-nearest"}


@pytest.mark.parametrize("name", [n for n in CATALOG if n not in OWN_SCALES])
@bounded
@given(pair=pairs(), rate=rates, a=st.sampled_from([-3.0, 1e-4, 0.5, 1e4]))
def test_scaling_x_scales_variance_by_its_square(name, pair, rate, a):
    x, y = pair
    assert close(variance(name, rate, a * x, y), a**2 * variance(name, rate, x, y), a * x, y)


@pytest.mark.parametrize("name", CATALOG)
@bounded
@given(pair=pairs(), rate=rates, a=st.sampled_from([-3.0, 1e-4, 0.5, 1e4]))
def test_scaling_y_scales_variance_by_its_square(name, pair, rate, a):
    x, y = pair
    assert close(variance(name, rate, x, a * y), a**2 * variance(name, rate, x, y), x, a * y)


@pytest.mark.parametrize("name", [n for n in CATALOG if not TRAITS[n].basis_matters])
@bounded
@given(pair=pairs(), rate=rates, seed=st.integers(0, 1000))
def test_rotated_features_change_nothing(name, pair, rate, seed):
    x, y = pair
    turned = x @ rotation(x.shape[1], seed), y @ rotation(y.shape[1], seed + 1)
    assert close(variance(name, rate, *turned), variance(name, rate, x, y), x, y)


@pytest.mark.parametrize("name", [n for n in CATALOG if not TRAITS[n].order_matters])
@bounded
@given(pair=pairs(), rate=rates, seed=st.integers(0, 1000))
def test_permuted_rows_change_nothing(name, pair, rate, seed):
    x, y = pair
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    assert close(variance(name, rate, x[order], y[order]), variance(name, rate, x, y), x, y)


# what is left of X is less, but (X − X̃)ᵀY may be more
COARSE = ["generators", "hot-columns", "largest-entries", "low-rank", "principal-features"]


@pytest.mark.parametrize("name", [n for n in CATALOG if not n.startswith(tuple(COARSE))])
@bounded
@given(pair=pairs(), two=st.tuples(rates, rates))
def test_a_higher_rate_is_never_worse(name, pair, two):
    x, y = pair
    fewer, more = (variance(name, rate, x, y) for rate in sorted(two))
    assert more <= fewer or close(more, fewer, x, y)


@pytest.mark.parametrize("name", NOTHING_LOST)
@bounded
@given(pair=pairs())
def test_rate_1_without_replacement_is_exact(name, pair):
    """SRHT where it pads nothing. Must fail: the same sketch with replacement, for all but a pair
    without variance.
    """
    x, y = pair
    if name == "srht":
        rows = 1 << (len(x).bit_length() - 1)
        x, y = x[:rows], y[:rows]
    nothing = torch.zeros((), dtype=torch.float64)
    assert close(variance(name, 1.0, x, y), nothing, x, y)
    other = f"{name}-iid" in CATALOG and f"{name}-iid" not in NOTHING_LOST
    if other and not close(variance(f"{name}-iid", 0.5, x, y), nothing, x, y):
        assert not close(variance(f"{name}-iid", 1.0, x, y), nothing, x, y)


@pytest.mark.parametrize("name", CATALOG)
@bounded
@given(pair=pairs(), rate=rates)
def test_variance_is_a_finite_float64_not_below_zero(name, pair, rate):
    v = variance(name, rate, *pair)
    assert v.dtype == torch.float64 and v.ndim == 0
    assert v.isfinite() and v >= 0


def test_these_comparisons_can_fail():
    """Must fail: a formula with a term that is not invariant, 0.1 % of it, is told from the right
    one.
    """
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6, d, generator=g, dtype=torch.float64) for d in (4, 3))
    right = variance("gaussian", 0.5, x, y)
    assert close(right, right, x, y)
    assert not close(right, right + 1e-3 * x[0].square().sum(), x, y)
    assert not close(right, right * (1 + 1e-6), x, y)
