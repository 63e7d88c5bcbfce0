"""The counter-based numbers are Philox's, and what is drawn from them obeys the closed forms."""

import math

import torch
from support.zscore import BOUND, case, check

from sketchvar.estimators import CountSketch, Gaussian, Moments, Rademacher
from sketchvar.estimators.kernels import counter

CPU = torch.device("cpu")


def test_known_answers_of_philox():
    """From the source's own test vectors, kat_vectors of Random123, philox4x32 with ten rounds."""
    for seed, counters, answers in (
        (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            0x299F31D0A4093822,
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ):
        first, *others = counters
        words = counter.philox(seed, torch.tensor([first]), *others)
        assert [int(w) for w in words] == list(answers)


def test_permutation_of_any_number_of_rows():
    for n in (0, 1, 2, 7, 64, 65, 1000, 16385):
        rows = counter.permutation(n, 2**62 + n, CPU)
        assert rows.sort().values.equal(torch.arange(n))
    assert not counter.permutation(1000, 1, CPU).equal(counter.permutation(1000, 2, CPU))


def worst_pair(size, rounds):
    """Greatest relative error of the chance of a difference between two rows' places, for ideal
    round functions.

    Of two pairs below ``size`` only the difference matters: a round that sees two different halves
    makes the difference of the others uniform; one that sees equal halves leaves it.
    """
    p = torch.eye(size * size, dtype=torch.float64)[1:].reshape(-1, size, size)
    for r in range(rounds):
        p = p if r % 2 else p.mT
        p = torch.cat([p[:, :1], p[:, 1:].mean(2, keepdim=True).expand(-1, -1, size)], 1)
        p = p if r % 2 else p.mT
    return float((p.flatten(1)[:, 1:] * (size * size - 1) - 1).abs().max())


def test_rounds_are_enough_for_two_rows():
    assert worst_pair(8, counter.MIXING) < 2.5e-4 and worst_pair(32, counter.MIXING) < 1e-6
    assert worst_pair(8, 6) > 0.05  # must fail: half the rounds


def test_two_rows_meet_in_a_bucket_as_often_as_they_should():
    n, k, draws = 60, 20, 2000
    order = counter.permutation(n, torch.arange(draws)[:, None], CPU)
    buckets = torch.empty_like(order).scatter_(
        1, order, torch.arange(n).div(3, rounding_mode="floor").expand(draws, n)
    )
    met = (
        (buckets[:, :, None] == buckets[:, None, :]).double().mean(0)[*torch.triu_indices(n, n, 1)]
    )
    p = 2 / 59
    stderr = (p * (1 - p) / draws) ** 0.5
    assert k * 3 == n and (met - p).abs().max() < 5.5 * stderr  # 1770 pairs
    assert (met - 1 / k).abs().max() > 5.5 * stderr  # must fail: buckets drawn independently


def test_countsketch_of_the_counter_has_its_variance():
    x, y = (t - 0.8 for t in case(n=64, p=8, q=6))  # less in common, so fewer draws do
    seeds = torch.arange(8000)[:, None]
    order, signs = counter.permutation(64, seeds, CPU), counter.row_signs(64, seeds, CPU).double()
    sx, sy = ((t[order] * signs[:, :, None]).unflatten(1, (16, 4)).sum(2) for t in (x, y))
    check(sx.mT @ sy, x.T @ y, CountSketch(0.25).variance(Moments.of(x, y)))


def test_dense_sketches_of_the_counter_have_their_variance():
    x, y = case()
    for estimator, entries in (
        (Gaussian(0.5), counter.normals),
        (Rademacher(0.5), counter.sign_matrix),
    ):
        s = entries(6, 3 * 200_000, 7, CPU).double().unflatten(1, (-1, 3)).movedim(1, 0) * 3**-0.5
        check((s.mT @ x).mT @ (s.mT @ y), x.T @ y, estimator.variance(Moments.of(x, y)))


def test_rows_of_a_dense_sketch_are_uncorrelated():
    """Rows that share a call of the generator, and rows that do not."""
    for entries in (counter.normals, counter.sign_matrix):
        s = entries(300, 4000, 3, CPU).double()
        correlation = s @ s.T / 4000 - torch.eye(300)
        assert correlation.triu(1).abs().max() < 6 / 4000**0.5
        assert (s[:150] * 1.2).square().mean() - 1 > BOUND * (
            2 / s[:150].numel()
        ) ** 0.5  # must fail
        assert (s.square().mean() - 1).abs() < BOUND * (2 / s.numel()) ** 0.5


def test_normals_are_normal():
    s = counter.normals(128, 10_000, 5, CPU).double().flatten().sort().values
    places = torch.arange(1, len(s) + 1) / len(s)
    distance = (torch.special.ndtr(s) - places).abs().max() * math.sqrt(len(s))
    assert distance < 2.2  # Kolmogorov: exceeded once in 10⁴
    assert (torch.special.ndtr(s / 1.01) - places).abs().max() * math.sqrt(
        len(s)
    ) > 2.2  # must fail: 1 % too wide


def test_numbers_that_round_are_uniform_and_uncorrelated():
    u = counter.uniforms(16000, 12, 1, CPU).double()
    assert torch.equal(u * 2**17 % 2, torch.ones_like(u))  # (k + 1/2) / 2^16
    assert u.min() > 0 and u.max() < 1
    for f in (0.01, 0.3, 0.5):
        stderr = (f * (1 - f) / u.numel()) ** 0.5
        assert ((u < f).double().mean() - f).abs() < BOUND * stderr
        assert ((u < f * 0.7).double().mean() - f).abs() > BOUND * stderr  # must fail
    correlation = torch.corrcoef(u.T) - torch.eye(12)
    assert correlation.abs().max() < 5.5 / 16000**0.5


def test_numbers_that_round_do_not_depend_on_what_is_asked_for():
    u = counter.uniforms(20, 30, 7, CPU)
    assert torch.equal(counter.uniforms(5, 13, 7, CPU, first=11), u[11:16, :13])
    a, b, c, d = counter.philox(7, torch.arange(4), 3, counter.ROUNDING)
    halves = torch.stack([w >> s & 0xFFFF for w in (a, b, c, d) for s in (0, 16)], 1).flatten()
    assert torch.equal(u[3].double() * 2**16 - 0.5, halves[:30].double())
