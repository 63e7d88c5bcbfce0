"""The fast Walsh–Hadamard transform against scipy's matrix."""

import pytest
import scipy.linalg
import torch

from sketchvar.estimators.kernels import hadamard as module
from sketchvar.estimators.kernels import hadamard_transform, next_power_of_two

SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 1024, 2048]  # on both sides of one, two and three blocks


def reference(x):
    """H·X by scipy, with X padded by zeros."""
    size = next_power_of_two(x.shape[0])
    h = torch.from_numpy(scipy.linalg.hadamard(size)).double()
    return h[:, : x.shape[0]] @ x.double()


def relative_error(result, expected):
    return ((result.double() - expected).norm() / expected.norm()).item()


def matrix(n, d=3, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(n), dtype=torch.float64).to(
        dtype
    )


@pytest.mark.parametrize("n", SIZES)
def test_powers_of_two(n):
    x = matrix(n)
    assert relative_error(hadamard_transform(x), reference(x)) < 1e-13


@pytest.mark.parametrize("n", [3, 5, 7, 33, 100, 1025])
def test_padding(n):
    x = matrix(n)
    assert hadamard_transform(x).shape == (next_power_of_two(n), 3)
    assert relative_error(hadamard_transform(x), reference(x)) < 1e-13


@pytest.mark.parametrize("n", [1, 4, 64, 100])
def test_twice_is_n_times(n):
    x = matrix(n)
    again = hadamard_transform(hadamard_transform(x))
    torch.testing.assert_close(again[:n], next_power_of_two(n) * x)
    assert (again[n:].abs() < 1e-11).all()


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize("n", [8, 100, 2048])
def test_dtypes(n, dtype):
    x = matrix(n, dtype=dtype)
    result = hadamard_transform(x)
    assert result.dtype == dtype
    assert relative_error(result, reference(x)) < 2 * max(
        torch.finfo(dtype).eps, 1e-14
    )  # the reference rounds too


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_integers_are_exact(dtype):
    x = matrix(2048).mul(100).round()
    assert torch.equal(hadamard_transform(x.to(dtype)).double(), reference(x))


def test_large_float32():
    """Against some rows of the definition H_ij = (−1)^popcount(i & j): scipy's matrix would take
    half a gigabyte.
    """
    x = matrix(8192, 64, torch.float32)
    rows = [0, 1, 31, 32, 1000, 1023, 1024, 4095, 4096, 8191]
    h = torch.tensor(
        [[(-1.0) ** (i & j).bit_count() for j in range(8192)] for i in rows], dtype=torch.float64
    )
    assert relative_error(hadamard_transform(x)[rows], h @ x.double()) < 1e-5


def test_tiles_meet_where_they_should(monkeypatch):
    x = matrix(33, 7)
    whole = hadamard_transform(x)
    for columns in (1, 2, 3, 7, 8):
        monkeypatch.setattr(module, "TILE", 64 * 8 * columns)
        torch.testing.assert_close(hadamard_transform(x), whole)
    monkeypatch.setattr(module, "TILE", 1)  # less than a column
    torch.testing.assert_close(hadamard_transform(x), whole)


@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_more_than_three_passes(monkeypatch, block):
    """As from 2¹⁶ rows on, where later passes over many rows work in place."""
    monkeypatch.setattr(module, "BLOCK", block)
    for n in SIZES:
        assert relative_error(hadamard_transform(matrix(n)), reference(matrix(n))) < 1e-13


def test_layout_and_input():
    x = matrix(16)
    before = x.clone()
    expected = hadamard_transform(x)
    torch.testing.assert_close(hadamard_transform(x.T.contiguous().T), expected)
    torch.testing.assert_close(
        hadamard_transform(x[:1].expand(16, -1)), hadamard_transform(x[:1].repeat(16, 1))
    )
    assert torch.equal(x, before)
    hadamard_transform(x[:1]).zero_()  # n = 1 is the identity, and a copy
    assert torch.equal(x, before)


def test_empty():
    assert torch.equal(hadamard_transform(torch.zeros(0, 3)), torch.zeros(1, 3))
    assert hadamard_transform(torch.zeros(5, 0)).shape == (8, 0)


def test_next_power_of_two():
    sizes = [next_power_of_two(n) for n in (0, 1, 2, 3, 4, 5, 1023, 1024, 1025)]
    assert sizes == [1, 1, 2, 4, 4, 8, 1024, 1024, 2048]


def test_a_wrong_transform_is_seen():
    """Must fail: one sign turned in one entry, and the order of the sequency-sorted transform."""
    x = matrix(8)
    wrong = reference(x).clone()
    wrong[3, 1] *= -1
    assert relative_error(hadamard_transform(x), wrong) > 1e-3
    assert relative_error(hadamard_transform(x), reference(x)[[0, 4, 6, 2, 3, 7, 5, 1]]) > 1e-3
