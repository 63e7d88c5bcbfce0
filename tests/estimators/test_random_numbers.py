"""The random numbers themselves: signs are fair, every row can be chosen, and edges of the unit
interval are safe.

Bounds: 4.5 standard errors for one number, 5.5 for the largest of up to 64.
"""

from unittest.mock import patch

import pytest
import torch

from sketchvar.estimators import SRHT, CountSketch, Rademacher, UniformRows
from sketchvar.estimators.seeds import generator

CPU = torch.device("cpu")
DRAWS = 4000


def frequencies(rows, size):
    """How often each of ``size`` rows was drawn, over DRAWS draws of the same number of rows."""
    return torch.bincount(torch.cat(rows).long(), minlength=size).double()


def fair(counts, probability):
    stderr = (DRAWS * probability * (1 - probability)) ** 0.5
    return bool(((counts - DRAWS * probability).abs() < 5.5 * stderr).all())


def entries(dense, n):
    s = dense.draw(n, 1, CPU)
    return s.entries(n, s.k, s.seed, CPU)


def test_signs_are_fair():
    s = entries(Rademacher(1.0), 1000)
    assert s.unique().tolist() == [-1, 1]
    assert s.mean().abs() < 4.5 / 1000
    assert (s.mean() - 0.01).abs() > 4.5 / 1000  # must fail: a coin of 0.505


@pytest.mark.parametrize("n", [12, 16, 33])
def test_srht_takes_every_row_of_the_padded_transform(n):
    size, e = (64 if n > 16 else 16), SRHT(0.25)
    drawn = [e.draw(n, seed, CPU) for seed in range(DRAWS)]
    assert all(len(s.rows.unique()) == e.k(n) for s in drawn[:50])
    counts = frequencies([s.rows for s in drawn], size)
    assert fair(counts, e.k(n) / size)
    assert not fair(counts * 1.3, e.k(n) / size)
    signs = torch.stack([s.signs for s in drawn])
    assert (signs.mean(0).abs() < 5.5 / DRAWS**0.5).all()


def test_uniform_rows_are_distinct_and_uniform():
    e = UniformRows(0.25)
    drawn = [e.draw(13, seed, CPU) for seed in range(DRAWS)]
    assert all(len(s.unique()) == 3 for s in drawn)
    assert fair(frequencies(drawn, 13), 3 / 13)


def test_countsketch_is_a_partition_of_equal_sizes():
    for n, rate, sizes in [
        (13, 0.4, [3, 3, 3, 2, 2]),
        (12, 0.25, [4, 4, 4]),
        (5, 1.0, [1] * 5),
        (5, 0.01, [5]),
    ]:
        s = CountSketch(rate).draw(n, 1, CPU)
        assert s.order.sort().values.tolist() == list(range(n))
        assert torch.diff(s.offsets, append=torch.tensor([n])).tolist() == sizes


def test_countsketch_sends_every_row_everywhere():
    e = CountSketch(0.4)
    places = torch.stack([e.draw(13, seed, CPU).order.argsort() for seed in range(DRAWS)])
    for row in range(13):
        assert fair(torch.bincount(places[:, row], minlength=13).double(), 1 / 13)


def test_choices_follows_the_probabilities():
    pi = torch.tensor([0.0, 0.1, 0.0, 0.6, 0.3, 0.0], dtype=torch.float64)
    counts = torch.bincount(generator(1).choices(pi, 100_000), minlength=6) / 100_000
    assert (counts[pi == 0] == 0).all()
    assert ((counts - pi).abs() < 4.5 * (pi * (1 - pi) / 100_000).sqrt() + 1e-15).all()


@pytest.mark.parametrize(("u", "row"), [(0.0, 1), (0.25, 3), (1 - 2**-53, 3), (1.0, 3)])
def test_choices_at_the_edges(u, row):
    """Exactly on an edge, and at both ends, where a row of probability 0 is one rounding away."""
    pi = torch.tensor([0.0, 0.25, 0.0, 0.75, 0.0], dtype=torch.float64)
    with patch("torch.rand", return_value=torch.tensor([u], dtype=torch.float64)):
        assert generator(1).choices(pi, 1).item() == row


def test_choices_takes_more_rows_than_multinomial():
    n = 2**24 + 2
    pi = torch.zeros(n, dtype=torch.float64)
    pi[-1] = 1
    assert generator(1).choices(pi, 3).tolist() == [n - 1] * 3


def test_draws_are_made_in_float32_whatever_the_data():
    """Autocast would otherwise make forward and backward disagree."""
    torch.set_default_dtype(torch.float64)
    try:
        wide = entries(Rademacher(0.5), 8)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(wide, entries(Rademacher(0.5), 8))
    assert torch.rand(1, generator=generator(1)).dtype == torch.float32
