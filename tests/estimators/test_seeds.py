"""Seeds: folding keeps different arguments apart, and gives the same number on every machine."""

import pytest
import torch

from sketchvar.estimators.seeds import fold, generator


def test_golden_values():
    """Recorded results name their seeds: these numbers may never change."""
    assert fold(0) == 4246866556266386882
    assert fold(1, 2) == 4213437202586906495
    assert fold(1, "layer.0", 7) == 211585644630309839


def test_arguments_are_kept_apart():
    numbers = [(1, 2), (2, 1), (1,), (2,), (12,), (1, 2, 3), (1, 23), (12, 3), (1, 3, 2)]
    words = [(1, "2"), (1, "2", "3"), (1, "23"), (1, "a", "b"), (1, "ab"), (1, ""), (1, "", "")]
    others = [(-1,), (1, -2), (fold(1), 2)]
    seeds = [fold(*arguments) for arguments in numbers + words + others]
    assert len(set(seeds)) == len(seeds)


def test_range_and_spread():
    seeds = [fold(0, i) for i in range(20_000)]
    assert all(0 <= s < 2**63 for s in seeds)
    assert len(set(seeds)) == len(seeds)
    for bit in (0, 31, 62):  # 5 standard errors of a fair coin
        ones = sum(s >> bit & 1 for s in seeds)
        assert abs(ones - 10_000) < 5 * (20_000 / 4) ** 0.5


def test_large_seeds_and_any_integer():
    assert fold(2**200, 1) != fold(2**200 + 1, 1)
    assert fold(True) == fold(1)


def test_a_generator_is_its_seed():
    first = torch.randn(5, generator=generator(3))
    assert torch.equal(first, torch.randn(5, generator=generator(3)))
    assert not torch.equal(first, torch.randn(5, generator=generator(4)))


def test_generator_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    torch.randn(5, generator=generator(fold(2**80, "x")))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_generator_on_cuda():
    g = generator(3, "cuda")
    assert g.device.type == "cuda"
    assert torch.equal(
        torch.randn(5, generator=g, device="cuda"),
        torch.randn(5, generator=generator(3, "cuda"), device="cuda"),
    )
