"""What users hand over as it is: NumPy arrays and integers, activations with a gradient."""

import numpy as np
import pytest
import torch
from test_contract import is_random

from sketchvar.analysis.noise import pair_layer
from sketchvar.estimators import (
    CATALOG,
    CountSketch,
    Moments,
    UniformRows,
    build,
    empirical,
    estimate,
)
from sketchvar.estimators.catalog import ORACLES
from sketchvar.estimators.seeds import fold


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    return torch.randn(40, 12, generator=g), torch.randn(40, 8, generator=g)


def made(name, y):
    return build(name, 0.25, y.square().sum(1) if name in ORACLES else None)


@pytest.mark.parametrize("name", CATALOG)
def test_activations_with_a_gradient_are_taken_as_numbers(name, pair):
    x, y = pair
    expected = estimate(made(name, y), x, y, 3)
    found = estimate(made(name, y), x.clone().requires_grad_() * 1, y, 3)
    assert torch.equal(found, expected) and not found.requires_grad
    kept = made(name, y).compress(x.clone().requires_grad_() * 1, 3)
    assert torch.equal(made(name, y).contract(kept, y), expected)


@pytest.mark.parametrize("name", CATALOG)
def test_numpy_arrays_and_integers_are_tensors_and_ints(name, pair, unchecked):
    x, y = pair
    seed = np.random.default_rng(0).integers(2**31)
    expected = estimate(made(name, y), x, y, int(seed))
    assert torch.equal(estimate(made(name, y), x.numpy(), y.numpy(), seed), expected)
    kept = made(name, y).compress(x.numpy(), seed)
    assert torch.equal(made(name, y).contract(kept, y.numpy()), expected)
    if is_random(made(name, y), x, y):
        assert not torch.equal(expected, estimate(made(name, y), x, y, int(seed) + 1))


def test_numpy_everywhere_else(pair, unchecked):
    x, y = pair
    e = UniformRows(np.float32(0.5))
    assert torch.equal(e.variance(Moments.of(x.numpy(), y.numpy())), e.variance(Moments.of(x, y)))
    assert pair_layer(x.numpy(), y.numpy()).moments.D == pair_layer(x, y).moments.D
    found = empirical(e, x.numpy(), y.numpy(), np.int64(5), np.int64(1)).variance.value
    assert found == empirical(e, x, y, 5, 1).variance.value
    assert fold(np.int64(1), np.int32(2), "a") == fold(1, 2, "a") != fold(1, 3, "a")


def test_what_is_no_matrix_is_refused_in_words(pair, unchecked):
    with pytest.raises(TypeError, match=r"torch tensors or NumPy arrays .* torch.tensor\(x\)"):
        estimate(CountSketch(0.5), "x", pair[1], 0)
