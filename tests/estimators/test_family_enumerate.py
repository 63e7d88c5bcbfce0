"""The rest of the family over every outcome of a small case, to 1e-12; and what its members promise
beside.
"""

import pytest
import torch
from test_enumerate import agrees, pair

from sketchvar.estimators import (
    SRHT,
    BernoulliRows,
    CountSketch,
    Moments,
    NormRows,
    OptimalRows,
    Rademacher,
    ScoredRows,
    SparseSign,
    SubsampledDCT,
    TopRows,
    UniformRows,
    WinnerTakeAllRows,
    estimate,
)
from sketchvar.estimators.certain import count_winners, order_by_norm
from sketchvar.estimators.kernels import cosine_transform
from sketchvar.estimators.testing import mean_and_variance


def heavy(n, zero_row=False):
    """Two rows far larger than the others, so that some win and others do not."""
    x, y = pair(n, zero_row)
    size = torch.ones(n, 1, dtype=torch.float64)
    size[1], size[-1] = 9, 5
    return x * size, y


def scores(n):
    return torch.arange(n, dtype=torch.float64)  # the first is zero: only its floor keeps that row


def sketch_like(k):
    return {"the paper's": lambda m: (m.Q - m.C) / k, "the Gaussian's": lambda m: (m.Q + m.C) / k}


def independent(k):
    return lambda m: (m.Q + m.C - 2 * m.D) / k


def without_mirror(k):
    """The DCT's formula with κ_ab = 1 − 1/n everywhere but on the diagonal: as if no two rows were
    mirror images.
    """
    return lambda m: ((1 - 1 / m.n) * (m.Q + 2 * m.C - 3 * m.D) + 1.5 * m.D - m.D / m.n - m.C) / k


# name: (estimator, pair, {why it is wrong: formula})
CASES = {
    "sparse sign 3 to 3, 2 each": (SparseSign(1.0, nonzeros=2), pair(3), sketch_like(3)),
    "sparse sign 3 to 2, 1 each": (SparseSign(0.7, nonzeros=1), pair(3), sketch_like(2)),
    "sparse sign 3 to 2, more than there are": (
        SparseSign(0.7, nonzeros=9),
        pair(3),
        sketch_like(2),
    ),
    "countsketch iid 4 to 2": (
        CountSketch(0.5, balanced=False),
        pair(4),
        {"balanced": lambda m: CountSketch(0.5).variance(m), **sketch_like(2)},
    ),
    "countsketch iid 4 to 4": (
        CountSketch(1.0, balanced=False),
        pair(4),
        {"zero at rate 1": lambda m: m.Q * 0},
    ),
    "srht iid 4 to 2": (
        SRHT(0.5, replacement=True),
        pair(4),
        {"without replacement": lambda m: SRHT(0.5).variance(m), **sketch_like(2)},
    ),
    "srht iid 3 to 2": (SRHT(0.6, replacement=True), pair(3), sketch_like(2)),
    "dct 4 to 2": (
        SubsampledDCT(0.5),
        pair(4),
        {"a Hadamard transform's": lambda m: SRHT(0.5).variance(m), "no mirror": without_mirror(3)},
    ),
    "dct 5 to 2": (SubsampledDCT(0.4), pair(5), {"independent": independent(2)}),
    "dct 5 to 5": (SubsampledDCT(1.0), pair(5), {}),
    "dct iid 4 to 2": (
        SubsampledDCT(0.5, replacement=True),
        pair(4),
        {"independent": independent(2), "no mirror": without_mirror(2)},
    ),
    "dct iid 5 to 2": (
        SubsampledDCT(0.4, replacement=True),
        pair(5),
        {"independent": independent(2), "no mirror": without_mirror(2)},
    ),
    "dct iid 3 to 3": (
        SubsampledDCT(1.0, replacement=True),
        pair(3),
        {"zero at rate 1": lambda m: m.Q * 0},
    ),
    "dct 1 to 1": (SubsampledDCT(1.0), pair(1), {}),
    "uniform rows iid 4 to 2": (
        UniformRows(0.5, replacement=True),
        pair(4),
        {"without replacement": lambda m: UniformRows(0.5).variance(m)},
    ),
    "bernoulli 5 to 2": (
        BernoulliRows(0.4),
        pair(5),
        {
            "one of each group": lambda m: NormRows(0.4).variance(m),
            "weights not squared": lambda m: m.D,
        },
    ),
    "bernoulli, two certain": (
        BernoulliRows(0.6),
        heavy(5),
        {"none certain": lambda m: NormRows(0.6).variance(m)},
    ),
    "bernoulli, one zero": (BernoulliRows(0.5), pair(4, zero_row=True), {}),
    "bernoulli 4 to 4": (BernoulliRows(1.0), pair(4, zero_row=True), {}),
    "winner take all 5 to 3, two win": (
        WinnerTakeAllRows(0.6),
        heavy(5),
        {
            "norm rows": lambda m: NormRows(0.6).variance(m),
            "bernoulli": lambda m: BernoulliRows(0.6).variance(m),
        },
    ),
    "winner take all 5 to 4": (
        WinnerTakeAllRows(0.8),
        heavy(5),
        {"norm rows": lambda m: NormRows(0.8).variance(m)},
    ),
    "winner take all, one zero": (WinnerTakeAllRows(0.6), heavy(5, zero_row=True), {}),
    "winner take all, none wins": (
        WinnerTakeAllRows(0.4),
        (torch.nn.functional.normalize(pair(5)[0]), pair(5)[1]),
        {"with replacement": lambda m: NormRows(0.4, replacement=True).variance(m)},
    ),
    "winner take all 4 to 4": (WinnerTakeAllRows(1.0), pair(4), {}),
    "scored rows 4 to 2": (
        ScoredRows(0.5, scores(4), floor=0.2),
        pair(4),
        {
            "without the floor": lambda m: OptimalRows(0.5, scores(4).square() + 1e-9).variance(m),
            "norm rows": lambda m: NormRows(0.5).variance(m),
        },
    ),
    "scored rows, one zero": (ScoredRows(0.5, scores(4).flip(0)), pair(4, zero_row=True), {}),
    "scored rows, nothing predicted": (
        ScoredRows(0.5, torch.zeros(4, dtype=torch.float64)),
        pair(4),
        {"norm rows": lambda m: NormRows(0.5).variance(m)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_enumeration(case, unchecked):
    estimator, (x, y), wrong = CASES[case]
    m, exact = Moments.of(x, y), x.T @ y
    mean, variance = mean_and_variance(estimator, x, y)
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


@pytest.mark.parametrize(("rate", "n"), [(0.4, 5), (0.8, 5), (0.5, 4)])
def test_top_rows_is_all_bias(rate, n):
    x, y = heavy(n)
    estimator, m = TopRows(rate), Moments.of(x, y)
    mean, mean_square = mean_and_variance(estimator, x, y)
    bias_sq = (mean - x.T @ y).square().sum()
    assert estimator.traits.biased and bias_sq > 0
    assert agrees(bias_sq, estimator.bias_sq(m), m)
    assert agrees(mean_square, estimator.variance(m), m)
    assert not agrees(mean_square, estimator.variance(m) * 1.05, m)
    assert TopRows(1.0).variance(m) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9])
def test_the_cosine_transform_is_orthonormal(n):
    u = cosine_transform(torch.eye(n, dtype=torch.float64), torch.arange(n))
    a, j = torch.arange(n).double(), torch.arange(n).double()[:, None]
    direct = torch.cos(torch.pi * (2 * a + 1) * j / (2 * n)) * ((1 + (j > 0).double()) / n).sqrt()
    torch.testing.assert_close(u, direct, rtol=0, atol=1e-14)
    some = torch.tensor([n - 1, 0])
    torch.testing.assert_close(
        cosine_transform(torch.eye(n, dtype=torch.float64), some), direct[some], rtol=0, atol=1e-14
    )
    torch.testing.assert_close(u @ u.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", [3, 7, 8, 33])
def test_the_dct_needs_no_pairs_of_rows(n):
    """Its closed form is the general one for any orthonormal transform, over all pairs of rows."""
    x, y = pair(n)
    u_sq = cosine_transform(torch.eye(n, dtype=torch.float64), torch.arange(n)).square()
    kappa = n * u_sq.T @ u_sq
    other = ~torch.eye(n, dtype=torch.bool)
    m = Moments.of(x, y)
    pairs = m.x_sq[:, None] * m.y_sq + 2 * (x @ x.T) * (y @ y.T)
    general = (kappa * pairs)[other].sum() + kappa.diag() @ (m.x_sq * m.y_sq) - m.C
    assert agrees(general / 2, SubsampledDCT(2 / n, replacement=True).variance(m), m)
    assert not agrees(general / 2, independent(2)(m), m)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("tail", [0.1, 1.0, 3.0])
def test_bernoulli_keeps_k_rows_in_the_mean(rate, tail, unchecked):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, generator=g) * torch.randn(50, 1, generator=g).mul(tail).exp()
    estimator = BernoulliRows(rate)
    pi = estimator.inclusion(x.double().norm(dim=1))
    assert pi.sum().item() == pytest.approx(estimator.k(50), rel=1e-12)
    assert ((pi > 0) & (pi <= 1)).all()
    kept = torch.tensor([estimator.compress(x, s).nbytes for s in range(2000)], dtype=torch.float64)
    expected = estimator.kept_bytes(50, 4, x.dtype)
    row = 4 * 4 + 4
    assert estimator.traits.varying_size and ((kept - 8) % row == 0).all()
    stderr = row * ((pi * (1 - pi)).sum() / 2000) ** 0.5
    assert abs(kept.mean() - expected) <= 4.5 * stderr
    assert abs(kept.mean() - (expected + row)) > 4.5 * stderr  # must fail: one row more


@pytest.mark.parametrize("k", range(1, 12))
def test_the_number_of_winners_is_the_best(k):
    """Against trying every number of winners; and a row wins just where Bernoulli would keep it for
    certain.
    """
    g = torch.Generator().manual_seed(k)
    norms = torch.randn(12, generator=g, dtype=torch.float64).mul(2).exp()
    ordered = norms[order_by_norm(norms)]
    bounds = torch.stack([ordered[t:].sum() / (k - t) for t in range(k)])
    t = int(count_winners(ordered, k))
    assert bounds[t] == pytest.approx(bounds.min().item(), rel=1e-12)
    certain = int((BernoulliRows(k / 12).inclusion(norms) == 1).sum())
    assert t == min(certain, k - 1)


def test_winners_beat_drawing_them():
    x, y = heavy(40)
    x[1:4] *= 30
    m = Moments.of(x, y)
    assert WinnerTakeAllRows(0.3).variance(m) < 0.5 * NormRows(0.3).variance(m)


def test_scores_that_are_true_come_close_to_the_oracle():
    x, y = heavy(40)
    m = Moments.of(x, y)
    oracle, floored = OptimalRows(0.2, m.y_sq), ScoredRows(0.2, m.y_sq.sqrt(), floor=1e-9)
    assert floored.variance(m).item() == pytest.approx(oracle.variance(m).item(), rel=1e-7)
    equal = ScoredRows(0.2, torch.full((40,), 7.0), floor=1e-9)
    assert equal.variance(m).item() == pytest.approx(NormRows(0.2).variance(m).item(), rel=1e-7)


def test_sparse_sign_draws_distinct_buckets():
    counts = torch.zeros(6, 6)
    for seed in range(400):
        drawn = SparseSign(0.6, nonzeros=3).draw(10, seed, torch.device("cpu"))
        bucket = torch.searchsorted(drawn.offsets, torch.arange(30), right=True) - 1
        s = torch.zeros(10, 6).index_put_((drawn.order, bucket), torch.ones(30), accumulate=True)
        assert s.sum(1).eq(3).all() and s.max() == 1
        counts += s.T @ s
    chance = counts / 4000  # of two buckets in one row: 3/6 · 2/5, and of one: 3/6
    assert (chance - torch.where(torch.eye(6) == 1, 0.5, 0.2)).abs().max() < 4.5 * (0.5 / 4000**0.5)


def test_sparse_sign_is_rademacher_when_full():
    x, y = pair(6)
    m = Moments.of(x, y)
    assert SparseSign(0.5, nonzeros=3).variance(m) == Rademacher(0.5).variance(m)


BAD = {
    r"SparseSign needs a whole number of nonzeros >= 1 per row, got nonzeros=0": lambda: SparseSign(
        0.5, nonzeros=0
    ),
    r"SparseSign needs 0 < rate <= 1, got rate=2": lambda: SparseSign(2.0),
    r"ScoredRows needs 0 < floor <= 1, got floor=0\.0; without a floor": lambda: ScoredRows(
        0.5, scores(3), floor=0.0
    ),
    r"ScoredRows needs one score >= 0 per row, got shape \(3,\), least -2": lambda: ScoredRows(
        0.5, scores(3) - 2
    ),
    r"ScoredRows was built for 3 rows and met 4; .*build it again": lambda: estimate(
        ScoredRows(0.5, scores(3)), *pair(4), 0
    ),
    r"OptimalRows was built for 3 rows and met 4; .*build it again": lambda: estimate(
        OptimalRows(0.5, scores(3)), *pair(4), 0
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()


def test_less_than_one_row_is_one_row():
    """rate · n < 1 keeps one row, by the definition of the rate."""
    x, y = pair(5)
    for estimator in (
        SparseSign(0.01),
        SubsampledDCT(0.01),
        WinnerTakeAllRows(0.01),
        TopRows(0.01),
    ):
        assert estimator.compress(x, 0).tensors[0].shape == (1, 3)
        assert estimator.variance(Moments.of(x, y)).isfinite()


@pytest.mark.parametrize("score", [1e-30, 1.0, 1e30])
def test_equal_scores_are_norm_rows_with_a_floor_and_zero_scores_uniform_rows(score):
    norms = pair(5)[0].norm(dim=1)
    expected = 0.9 * NormRows(0.5).probabilities(norms) + 0.1 / 5
    torch.testing.assert_close(
        ScoredRows(0.5, torch.full((5,), score)).probabilities(norms), expected
    )
    uniform = ScoredRows(0.5, torch.zeros(5)).probabilities(norms)
    torch.testing.assert_close(uniform, torch.full_like(norms, 0.2))
