"""Closed forms in a metric, diagonal or Kronecker: over every outcome or by draws, of the whole
catalog.
"""

import pytest
import torch
from test_enumerate import is_continuous, pair

from sketchvar.estimators import (
    CATALOG,
    BothRounded,
    Centered,
    CountSketch,
    FeatureProjection,
    GridRounding,
    GroupedRows,
    Kronecker,
    Moments,
    NormRows,
    Residual,
    Shrunk,
    StochasticRounding,
    SubsampledDCT,
    Then,
    UniformRows,
    build,
    empirical,
    estimate,
)
from sketchvar.estimators.metric import as_metric
from sketchvar.estimators.norms import row_sq
from sketchvar.estimators.testing import assert_variance, enumerate_outcomes


def metrics(p, q):
    """Weights of very different size, some of them zero, and two forms with large entries off their
    diagonals.
    """
    g = torch.Generator().manual_seed(p + 10 * q)
    weights = torch.rand(p, q, generator=g, dtype=torch.float64).pow(3) * 5
    weights[0, -1] = weights[-1, 0] = 0
    a, b = (torch.randn(d, d, generator=g, dtype=torch.float64) - 1 for d in (p, q))
    return {"diagonal": weights, "Kronecker": Kronecker(a.T @ a, b.T @ b)}


def seen(outcomes, exact, metric):
    return sum(probability * metric.norm_sq(g - exact) for probability, g in outcomes)


def agrees(value, formula, m):
    return ((value - formula).abs() <= 1e-12 * formula + 1e-14 * m.Q).item()


def check_every_outcome(estimator, x, y):
    """E‖Ĝ − G‖² in each metric, and that other weights or 5 % would be seen."""
    exact, plain = x.T @ y, Moments.of(x, y)
    outcomes = list(enumerate_outcomes(estimator, x, y))
    for weights in metrics(x.shape[1], y.shape[1]).values():
        m = Moments.of(x, y, weights)
        value, formula = seen(outcomes, exact, m.metric), estimator.variance(m)
        assert agrees(value, formula, m)
        assert value > 1e-20 or estimator.variance(plain) < 1e-20
        if value > 1e-20:  # must fail
            assert not agrees(value, formula * 1.05, m)
            assert not agrees(value, estimator.variance(plain), m)
        if estimator.traits.biased:
            mean = sum(probability * g for probability, g in outcomes)
            assert agrees(m.metric.norm_sq(mean - exact), estimator.bias_sq(m), m)


# both sides rounded have minutes of outcomes, and cases of their own below
@pytest.mark.parametrize("name", [name for name in CATALOG if not name.endswith("-both")])
def test_every_outcome_of_the_catalog(name, unchecked):
    x, y = pair(3)
    estimator = build(name, 0.6, y.square().sum(1))
    if estimator.traits.no_closed_form or is_continuous(estimator, x, y):
        pytest.skip("no end of outcomes, or no closed form")
    check_every_outcome(estimator, x, y)


HADAMARD = StochasticRounding(2, rotate=True)
COMPOSED = {
    "rotated rounding": (HADAMARD, (2, 4)),
    "rounding in groups": (StochasticRounding(1, group=2), (2, 4)),
    "rotated rounding of sampled rows": (Then(NormRows(0.5), HADAMARD), (2, 4)),
    "rotated grid": (GridRounding("e2m1", rotate=2), (2, 2)),
    "tokens": (GridRounding("e2m1", axis="tokens"), (4, 2)),
    "rotated tokens": (GridRounding("e2m1", axis="tokens", rotate=4), (4, 2)),
    "both sides": (BothRounded(GridRounding("e2m1"), StochasticRounding(1)), (2, 2)),
    "both sides, one to the nearest": (
        BothRounded(GridRounding("e2m1", nearest=True), GridRounding("e2m1")),
        (2, 2),
    ),
    "both sides, rotated": (
        BothRounded(*[GridRounding("e2m1", axis="tokens", rotate=2)] * 2),
        (2, 2),
    ),
    "both sides, rotated features": (
        BothRounded(GridRounding("e2m1", rotate=2), GridRounding("e2m1", rotate=2)),
        (2, 2),
    ),
    "centered rows": (Centered(NormRows(0.5)), (4, 3)),
    "what is left of the largest": (Residual(0.5, inner=CountSketch), (4, 3)),
    "shrunk": (Shrunk(CountSketch(0.5), 0.7), (4, 3)),
    "features by a cosine transform": (FeatureProjection(0.5, SubsampledDCT), (3, 4)),
    "an odd number of rows": (SubsampledDCT(0.4), (5, 3)),
    "groups of their own": (GroupedRows(0.5, torch.tensor([1.0, 4.0, 2.0, 0.5])), (4, 3)),
}


@pytest.mark.parametrize("case", COMPOSED)
def test_every_outcome_of_what_is_composed(case):
    estimator, (n, p) = COMPOSED[case]
    x, y = pair(n)
    g = torch.Generator().manual_seed(p)
    x = torch.randn(n, p, generator=g, dtype=torch.float64) + 0.7
    check_every_outcome(estimator, x, y)


CONTINUOUS = ["gaussian", "haar", "feature-gaussian", "feature-haar", "principal-features"]


@pytest.mark.parametrize("name", [*CONTINUOUS, "priority-rows"])
def test_draws(name, unchecked):
    """2,000 draws; 4.5 standard errors, which a true formula leaves for 7 of 10⁶ seeds. Must fail:
    30 % off, and weights of other entries, or forms without what lies off their diagonals.
    """
    g = torch.Generator().manual_seed(5)
    x, y = (torch.randn(12, d, generator=g, dtype=torch.float64) + 0.5 for d in (6, 4))
    grows = torch.linspace(0.3, 2, 6, dtype=torch.float64)
    x, y = x * grows, y * grows[:4]
    estimator, exact = build(name, 0.34), x.T @ y
    errors = torch.stack([estimate(estimator, x, y, seed) - exact for seed in range(2000)])
    right = metrics(6, 4)
    right["diagonal"] *= grows[:, None] * grows[:4]
    diagonals = [form.diag().diag() for form in vars(right["Kronecker"]).values()]
    wrong = {"diagonal": right["diagonal"].flip(0, 1), "Kronecker": Kronecker(*diagonals)}
    for kind, weights in right.items():
        m = Moments.of(x, y, weights)
        each = torch.stack([m.metric.norm_sq(error) for error in errors])
        stderr, formula = each.std() / len(each) ** 0.5, estimator.variance(m)
        assert (each.mean() - formula).abs() < 4.5 * stderr
        assert (each.mean() - 1.3 * formula).abs() > 4.5 * stderr
        other = estimator.variance(Moments.of(x, y, wrong[kind]))
        assert (each.mean() - other).abs() > 4.5 * stderr


@pytest.mark.parametrize("name", CATALOG)
def test_equal_weights_are_the_euclidean_metric(name):
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(16, d, generator=g, dtype=torch.float64) for d in (4, 3))
    estimator = build(name, 0.3, row_sq(y))
    if name == "priority-rows" or not estimator.traits.no_closed_form:
        plain, ones, same = (
            estimator.variance(Moments.of(x, y, weights))
            for weights in (None, torch.ones(4, 3), Kronecker(torch.eye(4), torch.eye(3)))
        )
        torch.testing.assert_close(ones, plain, rtol=1e-10, atol=0)
        torch.testing.assert_close(same, plain, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", ["countsketch", "srht", "dct", "haar", "uniform-rows", "gaussian"])
def test_a_sketch_in_a_kronecker_metric_is_of_another_pair(name):
    x, y = pair(5)
    form = metrics(3, 2)["Kronecker"]
    roots = [torch.linalg.cholesky(side) for side in (form.of_x, form.of_y)]
    m, other = Moments.of(x, y, form), Moments.of(x @ roots[0], y @ roots[1])
    for letter in "QCDL":
        torch.testing.assert_close(getattr(m, letter), getattr(other, letter))
    estimator = build(name, 0.4)
    torch.testing.assert_close(estimator.variance(m), estimator.variance(other))


def test_rounding_and_sampling_look_at_the_pair_itself():
    """Must fail for them: the form of the other pair."""
    x, y = pair(5)
    form = metrics(3, 2)["Kronecker"]
    roots = [torch.linalg.cholesky(side) for side in (form.of_x, form.of_y)]
    m, other = Moments.of(x, y, form), Moments.of(x @ roots[0], y @ roots[1])
    for estimator in (StochasticRounding(2), NormRows(0.4), FeatureProjection(0.4)):
        ratio = estimator.variance(m) / estimator.variance(other)
        assert (ratio - 1).abs() > 0.01


def test_statistics_that_are_given_are_not_computed_again():
    x, y = pair(5)
    m = Moments.of(x, y, metrics(3, 2)["diagonal"])
    known = Moments(
        3, 2, row_sq(x), row_sq(y), m.C, metric=m.metric, Q=m.Q.float(), rows_sq=m.rows_sq
    )
    for name in ("gaussian", "countsketch", "norm-rows", "bernoulli-rows"):
        estimator = build(name, 0.4)
        torch.testing.assert_close(
            estimator.variance(known), estimator.variance(m), rtol=1e-6, atol=0
        )
    with pytest.raises(ValueError, match=r"row norms only.*Moments\.of"):
        build("dct", 0.4).variance(known)


def test_narrow_dtypes():
    """A gradient of 300 and weights of 1e8, as those of Adam, in half precision."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(64, d, generator=g).half() * 300 for d in (6, 4))
    weights = torch.rand(6, 4, generator=g) * 1e8
    m, wide = Moments.of(x, y, weights), Moments.of(x.double(), y.double(), weights)
    for letter in "QCDL":
        torch.testing.assert_close(getattr(m, letter), getattr(wide, letter), rtol=1e-5, atol=0)


def test_measuring_takes_the_same_weights():
    x, y = pair(4)
    weights = metrics(3, 2)["diagonal"]
    assert_variance(UniformRows(0.5), x, y, weights=weights)
    measured = empirical(UniformRows(0.5), x, y, 2000, seed=0, weights=weights).variance
    assert measured.z(UniformRows(0.5).variance(Moments.of(x, y, weights))).abs() < 4.5
    assert measured.z(UniformRows(0.5).variance(Moments.of(x, y))).abs() > 4.5
    with pytest.raises(AssertionError, match=r"‖Ĝ − G‖² is"):
        assert_variance(Wrong(0.5), x, y, weights=weights)


class Wrong(UniformRows):
    """Has the Euclidean variance in every metric."""

    def variance(self, m):
        return super().variance(Moments.of(*m.pair))


def test_bad_weights():
    x, y = pair(4)
    for weights, match in (
        (torch.ones(2, 3), r"p × q = 3 × 2.*layer's weight; got shape \(2, 3\); transpose it"),
        (torch.ones(4, 4), r"p × q = 3 × 2.*got shape \(4, 4\)$"),
        (-torch.ones(3, 2), r"finite and >= 0, got values from -1 to -1"),
        (torch.full((3, 2), torch.nan), r"finite and >= 0, got values from nan"),
        (torch.full((3, 2), torch.inf), r"finite and >= 0, got values from inf"),
        (Kronecker(torch.eye(2), torch.eye(2)), r"A of a Kronecker metric must be 3 × 3"),
        (Kronecker(torch.eye(3), -torch.eye(2)), r"B of a Kronecker metric must be finite, symm"),
        (Kronecker(torch.ones(3, 3).triu(), torch.eye(2)), r"A of a Kronecker metric must be fin"),
    ):
        with pytest.raises(ValueError, match=match):
            as_metric(weights, x.shape[1], y.shape[1])
    assert as_metric(torch.ones(3, 2, dtype=torch.int64), 3, 2).weights.is_floating_point()
