"""What C++ gives on a CPU is what PyTorch's operators give, to the bit; and how it is built."""

import shutil
import subprocess

import pytest
import torch

from sketchvar.estimators import Centered, GridRounding, StochasticRounding
from sketchvar.estimators.grids import FORMATS, GRIDS
from sketchvar.estimators.kernels import find_native, native

COMPILER = shutil.which("g++") or shutil.which("c++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler here")


def matrix(n, p, dtype=torch.float32):
    g = torch.Generator().manual_seed(n * p)
    x = torch.randn(n, p, generator=g) * torch.randn(n, 1, generator=g).mul(4).exp() + 1
    return x.to(dtype)


def both(monkeypatch, run):
    """What C++ makes, and what PyTorch's operators make."""
    monkeypatch.setenv("SKETCHVAR_NATIVE", "on")
    assert find_native(torch.device("cpu")) is not None
    fast = run()
    monkeypatch.setenv("SKETCHVAR_NATIVE", "off")
    assert find_native(torch.device("cpu")) is None
    return fast, run()


ESTIMATORS = [StochasticRounding(bits) for bits in (1, 2, 4, 8)]
ESTIMATORS += [StochasticRounding(bits, group=3) for bits in (1, 2, 4, 8)]
ESTIMATORS += [StochasticRounding(2, rotate=True), Centered(StochasticRounding(4))]
ESTIMATORS += [
    GridRounding("e2m1", 16, "e4m3"),
    GridRounding("e2m1", 32, "power"),
    GridRounding("e4m3"),
    GridRounding("e5m2", 7),
    GridRounding("log2", scale="power"),
    GridRounding("nf4", 64),
    GridRounding("e4m3", 5, axis="tokens"),
    GridRounding("e5m2", rotate=2, nearest=True),
]


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("shape", [(600, 48), (3, 138), (1, 6)], ids=str)
def test_to_the_bit(estimator, shape, dtype, monkeypatch):
    x, y = matrix(*shape, dtype), matrix(shape[0], 5, dtype)
    kept, plain = both(monkeypatch, lambda: estimator.compress(x, 2**62 + 7))
    assert all(torch.equal(a, b) for a, b in zip(kept.tensors, plain.tensors, strict=True))
    g, expected = both(monkeypatch, lambda: estimator.contract(kept, y))
    assert torch.equal(g, expected)
    if x.numel() > 400 and not getattr(estimator, "nearest", False):  # must fail: another seed
        other = estimator.compress(x, 2**62 + 8)
        assert any(not torch.equal(a, b) for a, b in zip(kept.tensors, other.tensors, strict=True))


@needs_compiler
@pytest.mark.parametrize("e", [StochasticRounding(2), GridRounding("e4m3"), ESTIMATORS[10]])
def test_all_that_lies_on_a_grid_or_near_its_ends(e, monkeypatch):
    """Every value of the grid and its neighbours, zeros of both signs, tiny and huge blocks."""
    values = torch.tensor([0.0, -0.0, 1, 2, 3, 448, -448, 6, -6, 2**-9, -(2**-9), 1e-45, 1e-38])
    near = torch.cat([values, values.nextafter(values + 1), values.nextafter(values - 1)])
    g = torch.Generator().manual_seed(0)
    mixed = [near[torch.randperm(39, generator=g)[:32]] for _ in range(200)]
    x = torch.stack([row * s for row in mixed for s in (1, 0, 1e-30, 1e30)])
    kept, plain = both(monkeypatch, lambda: e.compress(x, 3))
    assert all(torch.equal(a, b) for a, b in zip(kept.tensors, plain.tensors, strict=True))


@needs_compiler
@pytest.mark.parametrize("scale", ["float", "power", "e4m3"])
@pytest.mark.parametrize("grid", FORMATS)
@pytest.mark.parametrize("most", [1e-44, 1e-30, 1.0, 1e30])
def test_scales_to_the_bit(grid, scale, most, monkeypatch):
    """Of blocks whose largest is where the least scale that is enough changes, or a step beside it;
    zero, tiny and large.
    """
    kept = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    edges = (
        torch.cat([kept, 2.0 ** torch.arange(-20, 9)]) * (GRIDS[grid].max() / 448).float() * most
    )
    up = edges.nextafter(torch.tensor(torch.inf))
    x = torch.stack([edges, up, edges.nextafter(torch.tensor(0.0))]).reshape(-1, 4)
    e = GridRounding(grid, 2, scale)
    fast, plain = both(monkeypatch, lambda: e.compress(x, 3))
    assert all(torch.equal(a, b) for a, b in zip(fast.tensors, plain.tensors, strict=True))
    restored, expected = both(monkeypatch, lambda: e.restore(fast, torch.float32))
    assert torch.equal(restored, expected)
    if most == 1.0:  # must fail: numbers a part in 10⁵ larger, but for the largest
        other = e.compress((x * 1.00001).clamp(max=x.max().item()), 3)
        assert not torch.equal(fast.tensors[1], other.tensors[1])


@needs_compiler
@pytest.mark.parametrize(
    "e", [StochasticRounding(2), GridRounding("e2m1", 16), GridRounding("nf4")]
)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_shows(e, bad):
    x = matrix(4, 32)
    x[1, 20] = bad
    rows = e.restore(e.compress(x, 0), torch.float32).isfinite().all(1)
    assert rows.tolist() == [True, False, True, True]


@needs_compiler
def test_threads_and_strides_change_nothing(monkeypatch):
    x, threads = matrix(2048, 40), torch.get_num_threads()
    e = StochasticRounding(2)
    once = e.compress(x, 1)
    try:
        torch.set_num_threads(3)
        again = [e.compress(z, 1) for z in (x, x.T.contiguous().T, torch.cat([x, x], 1)[:, :40])]
    finally:
        torch.set_num_threads(threads)
    assert all(
        torch.equal(a, b) for k in again for a, b in zip(once.tensors, k.tensors, strict=True)
    )


@needs_compiler
def test_it_is_built_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = native.build(COMPILER)
    monkeypatch.setattr(subprocess, "run", None)  # nothing is compiled again
    assert native.build(COMPILER) == first
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_without_a_compiler_or_with_one_that_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert native.load.__wrapped__() is None
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", shutil.which("false") or "/bin/false")
    with pytest.warns(UserWarning, match=r"false could not make rounding.cpp into a library"):
        assert native.load.__wrapped__() is None


@needs_compiler
@pytest.mark.parametrize("shape", [(7, 13), (130, 8), (1, 1), (0, 5), (3, 0)], ids=str)
def test_the_numbers_alone(shape, monkeypatch):
    """They serve dtypes and grids that C++ does not round."""
    device = torch.device("cpu")
    fast, plain = both(monkeypatch, lambda: native.uniforms(*shape, 2**62 + 7, device, first=5))
    assert torch.equal(fast, plain) and fast.shape == shape
