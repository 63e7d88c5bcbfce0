"""Bits for each row: enumerated, allocated as well as any allocation, and what it refuses."""

from itertools import product

import pytest
import torch
from test_enumerate import agrees, pair

from sketchvar.estimators import Moments, RowBits, StochasticRounding, parse
from sketchvar.estimators.quantize import BITS
from sketchvar.estimators.testing import mean_and_variance


@pytest.mark.parametrize("scores", [None, [1.0, 0.0, 3.0, 1.0]])
def test_every_outcome(scores):
    x, y = pair(4)
    x[1] *= 4
    estimator = RowBits(3, None if scores is None else torch.tensor(scores))
    m = Moments.of(x, y)
    assert len(estimator.allocate(x).unique()) > 1
    mean, variance = mean_and_variance(estimator, x, y)
    assert (mean - m.G).norm() <= 1e-12 * m.Q.sqrt()
    assert agrees(variance, estimator.variance(m), m)
    assert not agrees(variance, estimator.variance(m) * 1.05, m)  # must fail, and so must
    assert not agrees(variance, StochasticRounding(2).variance(m), m)


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(4))
def test_no_allocation_of_as_many_bits_is_better(bits, seed):
    """Against all 4⁵."""
    g = torch.Generator().manual_seed(seed)
    x, scores = torch.randn(5, 6, generator=g), torch.rand(5, generator=g).exp()
    places = RowBits(bits, scores).allocate(x).tolist()
    worth = [float(s * (r.max() - r.min())) ** 2 for s, r in zip(scores, x, strict=True)]

    def loss(chosen):
        return sum(w / (2 ** BITS[c] - 1) ** 2 for w, c in zip(worth, chosen, strict=True))

    used = sum(BITS[c] for c in places)
    every = [c for c in product(range(4), repeat=5) if sum(BITS[i] for i in c) <= used]
    assert used <= 5 * bits and used > 5 * bits - 4
    assert loss(places) <= min(map(loss, every)) * (1 + 1e-6)


def test_scores_of_y_lower_the_variance():
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(64, d, generator=g, dtype=torch.float64) for d in (16, 8))
    y = y * torch.randn(64, 1, generator=g).exp() ** 2
    m = Moments.of(x, y)
    knows, blind = RowBits(2, m.y_sq.sqrt()), RowBits(2)
    assert knows.variance(m) < 0.3 * blind.variance(m)
    for estimator in (knows, blind):
        kept, most = estimator.compress(x, 0).nbytes, estimator.kept_bytes(64, 16, x.dtype)
        assert most - 16 * 4 < kept <= most


def test_equal_and_spelled():
    ones, twos = torch.ones(3), 2 * torch.ones(3)
    assert RowBits(2, ones) == RowBits(2, ones.clone()) != RowBits(2, twos)
    assert RowBits(2) != RowBits(2, ones) and len({RowBits(2), RowBits(2), RowBits(4)}) == 2
    assert parse("row-bits:4") == RowBits(4)


def test_bad_input(unchecked):
    for bits in (0, 9, True):
        with pytest.raises(ValueError, match="RowBits needs 1 to 8 bits in the mean"):
            RowBits(bits)
    for scores in (torch.tensor([1.0, -1.0]), torch.ones(2, 2), torch.tensor([torch.nan])):
        with pytest.raises(ValueError, match="RowBits needs one score >= 0 per row"):
            RowBits(2, scores)
    with pytest.raises(ValueError, match="RowBits was built for 3 rows and met 5"):
        RowBits(2, torch.ones(3)).compress(torch.randn(5, 2), 0)
    x = torch.randn(5, 2, dtype=torch.float64)
    zero = RowBits(2, torch.zeros(5))  # says nothing of any row: each is rounded nonetheless
    assert torch.isfinite(zero.variance(Moments.of(x, x)))
