"""The Triton kernels give what their plain PyTorch paths give, run on a CPU by Triton's
interpreter.

Run by test_kernels.py in a process with TRITON_INTERPRET=1, which has to be set before triton is
imported, and without the shape checks, which would wrap the kernels.
"""

import pytest
import torch

from sketchvar.estimators import (
    SRHT,
    CountSketch,
    Gaussian,
    Rademacher,
    SketchedLinear,
    StochasticRounding,
    estimate,
)
from sketchvar.estimators import kernels as door
from sketchvar.estimators.kernels import (
    Buckets,
    bucket_sums,
    counter,
    hadamard_transform,
    next_power_of_two,
    rounding,
)

kernels = door.load_triton()
assert kernels is not None
CPU = torch.device("cpu")
LARGE = 2**62 + 12345


def matrix(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def used(monkeypatch):
    """Estimators use the kernels, as they do on a CUDA device."""

    def find(device, dtype=torch.float32):
        return kernels if dtype in door.DTYPES else None

    monkeypatch.setattr(door, "find_triton", find)


@pytest.mark.parametrize(("n", "k", "seed"), [(60, 7, 3), (150, 150, LARGE)])
def test_partition_to_the_bit(n, k, seed):
    order, offsets, signs = kernels.partition(n, k, seed, CPU)
    assert torch.equal(order.long(), counter.permutation(n, seed, CPU))
    assert torch.equal(signs, counter.row_signs(n, seed, CPU))
    assert torch.equal(offsets, CountSketch(k / n).draw(n, seed, CPU).offsets)
    assert not torch.equal(
        order.long(), counter.permutation(n, seed + 1, CPU)
    )  # must fail: another seed


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_bucket_sums(dtype):
    x = matrix(60, 37).to(dtype)
    s = Buckets(*kernels.partition(60, 7, 1, CPU))
    sums, wide = kernels.bucket_sums(*s, x), bucket_sums(s, x.double())
    assert sums.dtype == dtype
    assert torch.allclose(sums.double(), wide, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    assert torch.equal(kernels.bucket_sums(*s, x.T.contiguous().T), sums)  # columns first
    assert kernels.bucket_sums(*s, x[:, :0]).shape == (7, 0)


@pytest.mark.parametrize("entries", [counter.normals, counter.sign_matrix])
@pytest.mark.parametrize("k", [5, 70])
def test_products_with_a_matrix_never_stored(entries, k):
    x = matrix(140, 70)
    made = entries(140, k, LARGE, CPU)
    product = kernels.product(entries, k, LARGE, x)
    assert torch.allclose(product, made.T @ x * k**-0.5, rtol=1e-4, atol=2e-5)
    assert torch.allclose(
        kernels.product(entries, k, LARGE, x.T.contiguous().T), product, atol=1e-6
    )
    narrow = kernels.product(
        entries, k, LARGE, x.half()
    )  # the interpreter cannot multiply bfloat16
    assert narrow.dtype == torch.float16 and (narrow - product).norm() < 0.01 * product.norm()
    assert (
        product - entries(140, k, LARGE + 1, CPU).T @ x * k**-0.5
    ).norm() > product.norm() / 2  # must fail


@pytest.mark.parametrize("n", [9, 100, 300])
def test_hadamard(n):
    x = matrix(n, 70)
    transformed = kernels.hadamard(x, next_power_of_two(n))
    assert torch.allclose(transformed, hadamard_transform(x), atol=1e-4)
    assert not torch.allclose(transformed, hadamard_transform(x.roll(1, 0)), atol=1)  # must fail


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("group", [None, 12])
def test_rounding_and_packing_to_the_bit(bits, group):
    x = matrix(5, 36)
    low, step = StochasticRounding(bits, group).grid(x)
    packed = kernels.round_and_pack(x, low, step, bits, 11)
    assert torch.equal(packed, plain(x, low, step, bits, 11))
    assert torch.equal(
        kernels.unpack_and_scale(packed, low, step, bits, 36, x.dtype),
        rounding.unpack_and_scale(packed, low, step, bits, 36),
    )
    assert not torch.equal(
        packed, kernels.round_and_pack(x, low, step, bits, 12)
    )  # must fail: another seed


def plain(x, low, step, bits, seed):
    """What the plain path packs by the numbers of the counter."""
    u = counter.uniforms(*x.shape, seed, CPU)
    return rounding.round_and_pack(x, low, step, bits, lambda f: u.view_as(f) < f)


def test_rounding_rows_that_do_not_fill_their_bytes():
    x = matrix(3, 13)
    low, step = StochasticRounding(2).grid(x)
    packed = kernels.round_and_pack(x, low, step, 2, 1)
    assert torch.equal(packed, plain(x, low, step, 2, 1))


# the interpreter multiplies no bfloat16
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("group", [None, 23])
def test_products_from_codes(bits, group, dtype):
    """X̂ᵀ(Y − 1 mean) for an X̂ that is never stored, of rows and columns that fill no tile."""
    rounding_, y = StochasticRounding(bits, group), matrix(70, 9, seed=1).to(dtype)
    x = matrix(70, 69).to(dtype)
    kept, mean = rounding_.compress(x, 3), y.float().mean(0) + 1
    for about in (None, mean):
        g = kernels.multiply_codes(*kept.tensors, bits, 69, y, about)
        expected = rounding_.contract_about(kept, y, about)
        assert g.dtype == dtype and g.shape == (69, 9)
        error = (g - expected).float().norm() / expected.float().norm()
        assert error < (1e-6 if dtype == torch.float32 else 1e-2)
    # must fail: without the mean
    other = kernels.multiply_codes(*kept.tensors, bits, 69, y, None)
    assert (other - expected).float().norm() > 0.1 * expected.float().norm()


def test_estimators_multiply_from_codes(used):
    x, y = matrix(40, 16), matrix(40, 8, seed=1)
    for e, alike in ((StochasticRounding(2), True), (StochasticRounding(2, rotate=True), False)):
        kept = e.compress(x, 1)
        g = kernels.multiply_codes(*kept.tensors, 2, 16, y, None)
        assert torch.equal(e.contract(kept, y), g) == alike  # rotated codes are not those of X


USERS = [
    CountSketch(0.2),
    CountSketch(0.2, balanced=False),
    Gaussian(0.2),
    Rademacher(0.2),
    SRHT(0.2),
]
USERS += [StochasticRounding(4), StochasticRounding(2, group=8, rotate=True)]


@pytest.mark.parametrize("estimator", USERS, ids=str)
def test_layers_forget_all_but_the_seed(estimator, used):
    """Backward, from seed and payload alone, makes the S that forward used: the estimate of the
    pair, bit by bit.
    """
    n = (
        6 if isinstance(estimator, StochasticRounding) else 60
    )  # a program per row, and the interpreter is slow
    x, y = matrix(n, 16), matrix(n, 8, seed=1)
    layer = SketchedLinear(16, 8, estimator)
    torch.manual_seed(3)
    layer(x.requires_grad_()).backward(y)
    torch.manual_seed(3)
    seed = int(torch.randint(2**63 - 1, ()))
    assert torch.equal(layer.weight.grad.T, estimate(estimator, x.detach(), y, seed))
    assert not torch.equal(layer.weight.grad.T, estimate(estimator, x.detach(), y, seed + 1))


def test_estimators_use_the_numbers_of_the_counter(used):
    x, y = matrix(60, 16), matrix(60, 8, seed=1)
    s = counter.normals(60, 12, 5, CPU) * 12**-0.5
    assert torch.allclose(estimate(Gaussian(0.2), x, y, 5), (s.T @ x).T @ (s.T @ y), atol=1e-3)
    assert torch.allclose(
        estimate(Gaussian(0.2), x.double(), y.double(), 5),
        (s.T @ x).double().T @ (s.T @ y).double(),
        atol=1e-3,
    )
    order, signs = counter.permutation(60, 5, CPU), counter.row_signs(60, 5, CPU)
    sx, sy = ((t[order] * signs[:, None]).unflatten(0, (12, 5)).sum(1) for t in (x, y))
    assert torch.allclose(estimate(CountSketch(0.2), x, y, 5), sx.T @ sy, atol=1e-4)
