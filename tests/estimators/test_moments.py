"""Moments against naive loops, and when each statistic is computed."""

import pytest
import torch

from sketchvar.estimators import Moments
from sketchvar.estimators.norms import row_sq


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(7, d, generator=g, dtype=torch.float64) + 0.3 for d in (4, 3))


def naive(x, y):
    """The definitions, entry by entry."""
    n, p, q = len(x), x.shape[1], y.shape[1]
    xs, ys = x.tolist(), y.tolist()
    x_sq = [sum(v * v for v in row) for row in xs]
    y_sq = [sum(v * v for v in row) for row in ys]
    return {
        "Q": sum(a * b for a in x_sq for b in y_sq),
        "C": sum(
            sum(xs[i][a] * ys[i][b] for i in range(n)) ** 2 for a in range(p) for b in range(q)
        ),
        "D": sum(x_sq[i] * y_sq[i] for i in range(n)),
        "L": sum((x_sq[i] * y_sq[i]) ** 0.5 for i in range(n)),
    }


def test_definitions(pair):
    m, expected = Moments.of(*pair), naive(*pair)
    assert (m.n, m.p, m.q) == (7, 4, 3)
    for letter, value in expected.items():
        assert getattr(m, letter).item() == pytest.approx(value, rel=1e-13), letter
    assert m.alpha.item() == pytest.approx(expected["C"] / expected["Q"], rel=1e-13)


def test_inequalities(pair):
    m = Moments.of(*pair)
    assert 0 <= m.alpha <= 1
    assert m.D <= m.L**2 <= m.Q
    assert m.C <= m.L**2


def test_C_is_computed_only_when_asked_for(pair, monkeypatch):
    def refuse(*_):
        raise AssertionError("XᵀY was formed")

    m = Moments.of(*pair)
    with monkeypatch.context() as patch:
        patch.setattr(
            torch.Tensor, "__matmul__", lambda a, b: torch.dot(a, b) if a.ndim == 1 else refuse()
        )
        assert m.Q > 0 and m.D > 0 and m.L > 0
        assert "C" not in vars(m)
        with pytest.raises(AssertionError, match="was formed"):
            _ = m.C
    assert m.C > 0 and "C" in vars(m)


def test_from_row_norms_and_C(pair):
    x, y = pair
    full = Moments.of(x, y)
    m = Moments(4, 3, row_sq(x).float(), row_sq(y).float(), C=full.C)
    for letter in "QCDL":
        assert getattr(m, letter).dtype == torch.float64
        torch.testing.assert_close(getattr(m, letter), getattr(full, letter), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match=r"row norms only.*Moments\.of"):
        _ = m.pair


def test_a_given_C_is_not_computed_again(pair):
    x, y = pair
    m = Moments(4, 3, row_sq(x), row_sq(y), C=torch.tensor(2.0), pair=pair)
    assert m.C == 2 and m.pair[0] is x


def unchecked(function):
    """Without beartype, which only tests run and which would object first."""
    return getattr(function, "__wrapped__", function)


def test_errors(pair):
    x, y = pair
    with pytest.raises(ValueError, match="got neither"):
        Moments(4, 3, row_sq(x), row_sq(y))
    with pytest.raises(ValueError, match=r"one entry per row, got \(7,\) and \(6,\)"):
        unchecked(Moments.__init__)(
            object.__new__(Moments), 4, 3, row_sq(x), row_sq(y)[1:], C=torch.tensor(1.0)
        )


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 1e-5), (torch.bfloat16, 1e-5), (torch.float32, 1e-5)]
)
def test_narrow_dtypes_neither_overflow_nor_lose_digits(dtype, tolerance):
    """Squares of 300 overflow float16, and a bfloat16 sum of 4096 ones stops at 256."""
    x = torch.full((4096, 6), 300.0).to(dtype)
    y = torch.ones(4096, 2).to(dtype)
    m, wide = Moments.of(x, y), Moments.of(x.double(), y.double())
    for letter in "QCDL":
        assert getattr(m, letter).dtype == torch.float64
        torch.testing.assert_close(
            getattr(m, letter), getattr(wide, letter), rtol=tolerance, atol=0
        )
    assert m.pair[0].dtype == torch.float32


def test_no_rows_and_zero():
    m = Moments.of(torch.zeros(0, 4), torch.zeros(0, 3))
    assert m.n == 0 and m.Q == m.C == m.D == m.L == 0
    assert Moments.of(torch.zeros(3, 4), torch.ones(3, 2)).alpha.isnan()
