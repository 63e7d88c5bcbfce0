"""Centered and Then: exact where they can be, unbiased always, and clear about what makes no
sense.
"""

import pytest
import torch
from test_enumerate import agrees, pair

from sketchvar.estimators import (
    SRHT,
    BernoulliRows,
    Centered,
    Compressed,
    CountSketch,
    Exact,
    FeatureProjection,
    Gaussian,
    Moments,
    NormRows,
    OptimalRows,
    Rademacher,
    StochasticRounding,
    SubsampledDCT,
    Then,
    TopRows,
    UniformRows,
    WinnerTakeAllRows,
    empirical,
    estimate,
)
from sketchvar.estimators.combine import center_moments
from sketchvar.estimators.seeds import fold
from sketchvar.estimators.testing import assert_unbiased, mean_and_variance

ROUND = StochasticRounding(4)


def shifted(n, by=3.0):
    x, y = pair(n)
    return x + by, y - by


@pytest.mark.parametrize(
    "inner",
    [
        CountSketch(0.5),
        CountSketch(0.5, balanced=False),
        Rademacher(0.5),
        SRHT(0.5),
        UniformRows(0.5),
    ],
    ids=repr,
)
def test_centered_enumeration(inner):
    x, y = shifted(4)
    m, exact, estimator = Moments.of(x, y), x.T @ y, Centered(inner)
    mean, variance = mean_and_variance(estimator, x, y)
    formula = estimator.variance(m)
    assert (mean - exact).norm() <= 1e-12 * exact.norm()
    assert agrees(variance, formula, m)
    assert not agrees(variance, formula * 1.05, m)
    assert not agrees(variance, inner.variance(m), m)
    only_x = Moments.of(x - x.mean(0), y)
    assert not agrees(variance, inner.variance(only_x), m)


@pytest.mark.parametrize(
    "inner",
    [
        Gaussian(0.5),
        SubsampledDCT(0.5),
        NormRows(0.5),
        WinnerTakeAllRows(0.5),
        FeatureProjection(0.5),
        ROUND,
    ],
    ids=repr,
)
def test_centered_is_the_inner_one_of_the_centred_pair(inner):
    x, y = shifted(5)
    centred = (x - x.mean(0), y - y.mean(0))
    expected = 5 * torch.outer(x.mean(0), y.mean(0)) + estimate(inner, *centred, 7)
    torch.testing.assert_close(estimate(Centered(inner), x, y, 7), expected)
    torch.testing.assert_close(
        Centered(inner).variance(Moments.of(x, y)), inner.variance(Moments.of(*centred))
    )


def test_centering_pays_where_the_mean_is_large():
    x, y = shifted(50, by=10.0)
    m = Moments.of(x, y)
    assert Centered(CountSketch(0.1)).variance(m) < 0.01 * CountSketch(0.1).variance(m)


@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_centred_statistics_keep_their_digits(mean):
    """float32, against float64 of the very same numbers."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(500, 8, generator=g) + mean, torch.randn(500, 6, generator=g) + mean
    m, wide = (center_moments(Moments.of(a, b)) for a, b in ((x, y), (x.double(), y.double())))
    for letter in "QCDL":
        torch.testing.assert_close(
            getattr(m, letter), getattr(wide, letter), rtol=1e-3 * mean / 1e2, atol=0
        )


def test_centered_moments_are_lazy_and_do_not_touch_the_plain_ones():
    x, y = shifted(6)
    m = Moments.of(x, y)
    _ = m.D
    assert "G" not in vars(m)
    centered = center_moments(m)
    assert center_moments(m) is centered and centered.D != m.D
    torch.testing.assert_close(center_moments(centered).D, centered.D)


def test_centered_keeps_one_row_more():
    for dtype, width in ((torch.bfloat16, 4), (torch.float32, 4), (torch.float64, 8)):
        inner, x = CountSketch(0.25), torch.randn(40, 6).to(dtype)
        kept = Centered(inner).compress(x, 0)
        assert (
            kept.nbytes
            == inner.kept_bytes(40, 6, dtype) + 6 * width
            == Centered(inner).kept_bytes(40, 6, dtype)
        )


FIRSTS = [
    CountSketch(0.5),
    Gaussian(0.5),
    UniformRows(0.5),
    NormRows(0.5),
    FeatureProjection(0.5),
    Exact(),
]


@pytest.mark.parametrize(
    "first",
    [
        CountSketch(0.5),
        Rademacher(0.5),
        UniformRows(0.5),
        NormRows(0.5),
        FeatureProjection(0.5, Rademacher),
        Exact(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("bits", [1, 8])
def test_then_is_unbiased(first, bits):
    """Over every draw of the first and, given it, every way to round what it keeps."""
    assert_unbiased(Then(first, StochasticRounding(bits)), *pair(3))


@pytest.mark.parametrize("first", FIRSTS, ids=repr)
def test_then_rounds_the_matrix_of_the_first(first):
    x, y = pair(4)
    kept = Then(first, ROUND).compress(x, 3)
    first_kept = first.compress(x, 3)
    rounded = ROUND.compress(first_kept.tensors[0], fold(3, "rounding"))
    for a, b in zip(kept.tensors, (*rounded.tensors, *first_kept.tensors[1:]), strict=True):
        assert torch.equal(a, b)
    by_hand = first_kept._replace(
        tensors=(ROUND.restore(rounded, x.dtype), *first_kept.tensors[1:])
    )
    assert torch.equal(Then(first, ROUND).contract(kept, y), first.contract(by_hand, y))
    assert isinstance(kept, Compressed) and kept.shape == (4, 3)


@pytest.mark.parametrize("first", [*FIRSTS, Rademacher(0.3)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_then_kept_bytes(first, dtype):
    x = torch.randn(30, 12).to(dtype)
    for bits in (1, 4):
        estimator = Then(first, StochasticRounding(bits))
        assert estimator.compress(x, 0).nbytes == estimator.kept_bytes(30, 12, dtype)


def test_then_after_exact_is_rounding():
    x, y = pair(4)
    m = Moments.of(x, y)
    assert Then(Exact(), ROUND).variance(m) == ROUND.variance(m)
    _, variance = mean_and_variance(ROUND, x, y)
    assert agrees(variance, Then(Exact(), ROUND).variance(m), m)


def closed(first, n=4):
    """A pair with one row that wins, and ``first`` rounded to one bit."""
    x, y = pair(n)
    x[0] *= 9
    return x, y, Then(first, StochasticRounding(1))


@pytest.mark.parametrize(
    "first",
    [
        UniformRows(0.5),
        UniformRows(0.5, replacement=True),
        NormRows(0.5),
        BernoulliRows(0.5),
        WinnerTakeAllRows(0.8),
        WinnerTakeAllRows(1.0),
    ],
    ids=repr,
)
def test_then_after_kept_rows_enumeration(first):
    """Every choice of rows by the first and, given it, every way to round what it keeps."""
    x, y, estimator = closed(first)
    m, exact = Moments.of(x, y), x.T @ y
    mean, variance = mean_and_variance(estimator, x, y)
    formula = estimator.variance(m)
    assert (mean - exact).norm() <= 1e-12 * exact.norm()
    assert agrees(variance, formula, m)
    assert not agrees(variance, formula * 1.05, m) and not agrees(variance, formula / 1.05, m)
    if first.rate < 1:  # must fail: as if all rows were kept, and rounded, as they are
        assert not agrees(variance, first.variance(m) + estimator.second.variance(m), m)
    assert not estimator.traits.no_closed_form and estimator.traits.needs_pair


def test_then_after_kept_rows_costs_the_rounding_once():
    x, y, _ = closed(UniformRows(0.5), 6)
    m = Moments.of(x, y)
    with pytest.MonkeyPatch.context() as patch:
        calls = []
        whole = StochasticRounding.row_errors
        patch.setattr(
            StochasticRounding,
            "row_errors",
            lambda self, *given: calls.append(self) or whole(self, *given),
        )
        for rate in (0.2, 0.5, 1.0):
            Then(UniformRows(rate), StochasticRounding(1)).variance(m)
        StochasticRounding(1).variance(m), StochasticRounding(2).variance(m)
    assert calls == [StochasticRounding(1), StochasticRounding(2)]


def test_then_adds_little_variance_at_eight_bits_and_much_at_one():
    x, y = pair(8)
    m, first = Moments.of(x, y), CountSketch(0.5)
    seen = {
        b: empirical(Then(first, StochasticRounding(b)), x, y, 3000, 0).variance for b in (1, 8)
    }
    assert seen[8].z(first.variance(m)).abs() < 4.5
    assert seen[1].z(first.variance(m)) > 4.5


def test_no_closed_form_says_so():
    x, y = pair(4)
    estimator = Then(CountSketch(0.5), ROUND)
    with pytest.raises(
        NotImplementedError,
        match=r"Then\(.*no closed form.*empirical\(estimator, x, y, draws, seed\)",
    ):
        estimator.variance(Moments.of(x, y))
    assert estimator.traits.no_closed_form and not Then(Exact(), ROUND).traits.no_closed_form


def test_traits_are_those_of_what_is_inside():
    oracle = OptimalRows(0.5, torch.ones(4))
    assert (
        oracle.traits.oracle
        and Then(oracle, ROUND).traits.oracle
        and Centered(oracle).traits.oracle
    )
    assert Then(BernoulliRows(0.5), ROUND).traits.varying_size
    assert Centered(Then(Gaussian(0.5), ROUND)).traits.no_closed_form
    assert Centered(Gaussian(0.5)).traits.needs_pair and not Gaussian(0.5).traits.needs_pair


def without_beartype(kind, *arguments):
    """Only tests run beartype, which would object first."""
    estimator = object.__new__(kind)
    for name, value in zip(kind.__dataclass_fields__, arguments, strict=True):
        object.__setattr__(estimator, name, value)
    estimator.__post_init__()


NONSENSE = {
    r"Centered\(Centered\(inner=CountSketch.*makes no sense": (
        Centered,
        Centered(CountSketch(0.1)),
    ),
    r"Centered\(Exact\(\)\) makes no sense: there is nothing left to centre": (Centered, Exact()),
    r"Centered needs an unbiased estimator inside, got TopRows": (Centered, TopRows(0.1)),
    r"Then needs StochasticRounding second.*got Gaussian.*a sketch of a sketch": (
        Then,
        CountSketch(0.1),
        Gaussian(0.1),
    ),
    r"keeps one matrix to round.*got Stochastic": (Then, ROUND, ROUND),
    r"keeps one matrix to round.*got Then": (Then, Then(Gaussian(0.1), ROUND), ROUND),
    r"got Centered.*; centre first, as in Centered\(Then\(": (Then, Centered(Gaussian(0.1)), ROUND),
    r"Then needs an unbiased estimator inside, got TopRows": (Then, TopRows(0.1), ROUND),
}


@pytest.mark.parametrize("message", NONSENSE)
def test_nonsense_is_refused(message):
    with pytest.raises(ValueError, match=message):
        without_beartype(*NONSENSE[message])


def test_centered_needs_an_estimator():
    with pytest.raises(TypeError, match="Centered needs an estimator"):
        without_beartype(Centered, "countsketch")


def test_a_group_that_does_not_divide_what_is_rounded():
    x, _ = pair(4)
    with pytest.raises(ValueError, match="got group=2 for p=1"):
        Then(FeatureProjection(0.3), StochasticRounding(2, group=2)).compress(x, 0)


@pytest.mark.parametrize("inner", [CountSketch(0.2), UniformRows(0.2)], ids=str)
def test_a_mean_that_is_taken_off_on_the_way_costs_no_digits(inner):
    """A hundred times as large as what is left: within what rounding X to float32 does itself."""
    x, y = (torch.randn(700, d) + 100 * torch.randn(d) for d in (24, 9))
    mean, y_mean = x.double().mean(0), y.double().mean(0)
    kept = inner.compress_about(x, 3, mean.float())
    exact = inner.compress(x.double() - mean, 3)
    room = 20 * torch.finfo(torch.float32).eps * x.abs().max()
    assert (kept.tensors[0].double() - exact.tensors[0]).abs().max() <= room
    assert (
        inner.compress(x, 3).tensors[0] - exact.tensors[0]
    ).abs().max() > 100 * room  # must fail
    g = inner.contract_about(kept, y, y_mean.float()).double()
    expected = inner.contract(exact, y.double() - y_mean)
    assert (g - expected).norm() <= 1e-4 * expected.norm()
    assert (inner.contract(kept, y).double() - expected).norm() > 0.1 * expected.norm()  # must fail
