"""Mean and variance over every outcome of a small case equal G and the closed form; wrong formulas
are rejected.
"""

import pytest
import torch

from sketchvar.estimators import (
    CATALOG,
    SRHT,
    CountSketch,
    Moments,
    NormRows,
    OptimalRows,
    Rademacher,
    UniformRows,
    build,
)
from sketchvar.estimators.testing import (
    assert_unbiased,
    assert_variance,
    enumerate_outcomes,
    mean_and_variance,
)


def pair(n, zero_row=False):
    """Rows that share a direction (a large C) and differ in size (a large D), so that no term of a
    formula hides.
    """
    g = torch.Generator().manual_seed(n)
    x, y = (torch.randn(n, d, generator=g, dtype=torch.float64) + 0.7 for d in (3, 2))
    size = torch.linspace(0.5, 2.0, n, dtype=torch.float64)[:, None]
    x, y = x * size, y * size**2
    if zero_row:
        x[0] = 0
    return x, y


def agrees(enumerated, formula, m):
    return torch.isclose(enumerated, formula.double(), rtol=1e-12, atol=1e-24 * m.Q.item()).item()


def oracle(rate, x, y):
    return OptimalRows(rate, y.square().sum(1))


# both sides rounded: minutes of outcomes
AT_LENGTH = [
    pytest.param(name, marks=pytest.mark.slow) if name.endswith("-both") else name
    for name in CATALOG
]

# name: (estimator of the pair, rows, whether row 0 is zero, {why it is wrong: formula})
CASES = {
    "rademacher 4 to 2": (
        lambda x, y: Rademacher(0.5),
        4,
        False,
        {
            "the paper's": lambda m: (m.Q - m.C) / 2,
            "the Gaussian's": lambda m: (m.Q + m.C) / 2,
            "per entry": lambda m: (m.Q + m.C - 2 * m.D) / 2 / (m.p * m.q),
        },
    ),
    "rademacher 3 to 1": (
        lambda x, y: Rademacher(0.3),
        3,
        False,
        {"the paper's": lambda m: m.Q - m.C},
    ),
    "rademacher 3 to 3": (
        lambda x, y: Rademacher(1.0),
        3,
        False,
        {"zero at rate 1": lambda m: m.Q * 0},
    ),
    "countsketch 4 to 2": (
        lambda x, y: CountSketch(0.5),
        4,
        False,
        {
            "buckets drawn independently": lambda m: (m.Q + m.C - 2 * m.D) / 2,
            "the paper's": lambda m: (m.Q - m.C) / 2,
        },
    ),
    "countsketch 5 to 2": (
        lambda x, y: CountSketch(0.4),
        5,
        False,
        {
            "buckets of one size": lambda m: (m.Q + m.C - 2 * m.D) * (5 / 2 - 1) / 4,
            "buckets drawn independently": lambda m: (m.Q + m.C - 2 * m.D) / 2,
        },
    ),
    "countsketch 5 to 3": (
        lambda x, y: CountSketch(0.6),
        5,
        False,
        {"buckets of one size": lambda m: (m.Q + m.C - 2 * m.D) * (5 / 3 - 1) / 4},
    ),
    "countsketch 4 to 1": (
        lambda x, y: CountSketch(0.1),
        4,
        False,
        {"the paper's": lambda m: m.Q - m.C},
    ),
    "countsketch 4 to 4": (lambda x, y: CountSketch(1.0), 4, False, {}),
    "srht 4 to 2": (
        lambda x, y: SRHT(0.5),
        4,
        False,
        {
            "rows with replacement": lambda m: (m.Q + m.C - 2 * m.D) / 2,
            "the paper's": lambda m: (m.Q - m.C) / 2,
        },
    ),
    "srht 3 to 2": (
        lambda x, y: SRHT(0.6),
        3,
        False,
        {"without the padding": lambda m: (m.Q + m.C - 2 * m.D) * (3 - 2) / (2 * (3 - 1))},
    ),
    "srht 5 to 3": (
        lambda x, y: SRHT(0.6),
        5,
        False,
        {"without the padding": lambda m: (m.Q + m.C - 2 * m.D) * (5 - 3) / (3 * (5 - 1))},
    ),
    "srht 5 to 5": (lambda x, y: SRHT(1.0), 5, False, {"zero at rate 1": lambda m: m.Q * 0}),
    "srht 4 to 4": (lambda x, y: SRHT(1.0), 4, False, {}),
    "uniform rows 5 to 2": (
        lambda x, y: UniformRows(0.4),
        5,
        False,
        {
            "rows with replacement": lambda m: (5 * m.D - m.C) / 2,
            "finite population n, not n − 1": lambda m: (5 * m.D - m.C) * 3 / (2 * 5),
        },
    ),
    "uniform rows 4 to 4": (lambda x, y: UniformRows(1.0), 4, False, {}),
    "norm rows 4 to 2": (
        lambda x, y: NormRows(0.5),
        4,
        False,
        {
            "the paper's, for squared norms": lambda m: (m.Q - m.C) / 2,
            "the oracle's": lambda m: (m.L**2 - m.C) / 2,
            "with replacement": lambda m: NormRows(0.5, replacement=True).variance(m),
        },
    ),
    "norm rows iid 4 to 2": (
        lambda x, y: NormRows(0.5, replacement=True),
        4,
        False,
        {"without replacement": lambda m: NormRows(0.5).variance(m)},
    ),
    "norm rows, one zero": (
        lambda x, y: NormRows(0.75),
        4,
        True,
        {"the oracle's": lambda m: (m.L**2 - m.C) / 3},
    ),
    "optimal rows 4 to 2": (
        lambda x, y: oracle(0.5, x, y),
        4,
        False,
        {
            "without C": lambda m: m.L**2 / 2,
            "for norms alone": lambda m: (m.x_sq.sqrt().sum() * (m.x_sq.sqrt() @ m.y_sq) - m.C) / 2,
        },
    ),
    "optimal rows, one zero": (
        lambda x, y: oracle(0.75, x, y),
        4,
        True,
        {"without C": lambda m: m.L**2 / 3},
    ),
    "optimal rows for another Y": (
        lambda x, y: OptimalRows(0.5, torch.tensor([3.0, 1.0, 2.0, 5.0], dtype=torch.float64)),
        4,
        False,
        {"of the right Y": lambda m: (m.L**2 - m.C) / 2},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_enumeration(case, unchecked):
    make, n, zero_row, wrong = CASES[case]
    x, y = pair(n, zero_row)
    estimator, m = make(x, y), Moments.of(x, y)
    mean, variance = mean_and_variance(estimator, x, y)
    exact = x.T @ y
    formula = estimator.variance(m)

    assert (mean - exact).norm() <= 1e-12 * exact.norm()
    assert agrees(variance, formula, m)

    # must fail: the same comparison with the mean or the formula 5 % off, or with a formula of
    # something else
    assert (mean - 1.05 * exact).norm() > 1e-12 * exact.norm()
    assert formula == 0 or not agrees(variance, formula * 1.05, m)
    assert formula == 0 or not agrees(variance, formula / 1.05, m)
    for why, other in wrong.items():
        assert not agrees(variance, other(m), m), why


def test_zero_only_where_nothing_is_lost():
    x, y = pair(4)
    m = Moments.of(x, y)
    kinds = (CountSketch, SRHT, UniformRows, Rademacher, NormRows)
    exact = [CountSketch, SRHT, UniformRows, NormRows]
    assert [k for k in kinds if k(1.0).variance(m) == 0] == exact


def is_continuous(estimator, x, y):
    try:
        next(enumerate_outcomes(estimator, x, y))
    except TypeError as error:
        assert "no end of outcomes" in str(error)
        return True
    return False


@pytest.mark.parametrize("name", AT_LENGTH)
@pytest.mark.parametrize("zero_row", [False, True])
def test_the_whole_catalog(name, zero_row, unchecked):
    """What is in the catalog is enumerated, whether or not it has a case above."""
    x, y = pair(3, zero_row)
    estimator = build(name, 0.6, y.square().sum(1))
    if is_continuous(estimator, x, y):
        pytest.skip("tested by draws, in test_draws.py")
    if not estimator.traits.biased:
        assert_unbiased(estimator, x, y)
    if not estimator.traits.no_closed_form:
        assert_variance(estimator, x, y)
