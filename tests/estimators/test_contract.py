"""The contract of every estimator in the catalog: reproducible, two-phase, small, and free of side
effects.
"""

import copy
import gc
import pickle
import weakref

import pytest
import torch

from sketchvar.estimators import CATALOG, Exact, Moments, build, estimate
from sketchvar.estimators.catalog import ORACLES
from sketchvar.estimators.spelling import takes_rate

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture(params=CATALOG)
def name(request):
    return request.param


def pair(n=13, p=5, q=3, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=g).to(dtype) for d in (p, q))


def of(name, y, rate=0.4):
    return build(name, rate, y.double().square().sum(1))


def is_random(estimator, x, y):
    """Whether its closed form has more in it than a bias."""
    m, bias_sq = Moments.of(x, y), getattr(estimator, "bias_sq", lambda m: 0)
    return estimator.traits.no_closed_form or estimator.variance(m) > bias_sq(m)


def test_a_seed_is_all_the_randomness(name):
    x, y = pair()
    e = of(name, y)
    first = estimate(e, x, y, seed=7)
    assert torch.equal(first, estimate(e, x, y, seed=7))
    if is_random(e, x, y):
        assert any(not torch.equal(first, estimate(e, x, y, seed=s)) for s in range(8, 12))


def test_global_random_state_is_neither_used_nor_changed(name):
    x, y = pair()
    e = of(name, y)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = estimate(e, x, y, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(first, estimate(e, x, y, seed=7))


def test_two_phases_are_the_estimate_bit_for_bit(name):
    x, y = pair()
    e = of(name, y)
    kept = e.compress(x, 7)
    kept = pickle.loads(pickle.dumps(kept))  # whatever is not in it cannot be used
    assert kept.shape == tuple(x.shape)
    for _ in range(2):  # and contracting does not use it up
        assert torch.equal(e.contract(kept, y), estimate(e, x, y, 7))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("n", "p", "rate"), [(13, 5, 0.4), (64, 3, 0.1), (1, 2, 0.5), (0, 4, 0.5), (10, 1, 1.0)]
)
def test_kept_bytes(name, n, p, rate, dtype):
    x, y = pair(n, p, dtype=dtype)
    e = of(name, y, rate)
    kept = e.compress(x, 7)
    if not e.traits.varying_size:  # then it is the mean: see test_family_enumerate.py
        assert kept.nbytes == e.kept_bytes(n, p, dtype)
    assert kept.nbytes == 8 + sum(t.numel() * t.element_size() for t in kept.tensors)


@pytest.mark.parametrize("rate", [0.4, 1.0])
def test_nothing_else_is_kept(name, rate):
    x, y = pair()
    e = of(name, y, rate)
    kept = e.compress(x, 7)
    if isinstance(e, Exact):
        assert kept.tensors[0] is x, "a second copy of X"
        return
    for t in kept.tensors:
        assert t.untyped_storage().nbytes() == t.nbytes, "a view of something larger"
        assert t.untyped_storage().data_ptr() != x.untyped_storage().data_ptr(), "a view of X"
        assert not t.requires_grad
    alive = weakref.ref(x)
    del x
    if alive() is not None:  # or in a cycle; to look for one takes long
        gc.collect()
    assert alive() is None


def test_inputs_are_not_modified(name):
    x, y = pair()
    e = of(name, y)
    before, scores = (x.clone(), y.clone()), getattr(e, "y_sq", x).clone()
    kept = e.compress(x, 7)
    payload = [t.clone() for t in kept.tensors]
    e.contract(kept, y)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])
    assert torch.equal(getattr(e, "y_sq", x), scores)
    assert all(torch.equal(a, b) for a, b in zip(kept.tensors, payload, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(name, dtype):
    """The result has the dtype of X and is that of float64 for the same draw, up to the rounding of
    the dtype.
    """
    x, y = pair(40, dtype=dtype)
    e = of(name, y)
    result = estimate(e, x, y, 7)
    wide = estimate(e, x.double(), y.double(), 7)
    assert result.dtype == dtype
    assert (result.double() - wide).norm() <= 4 * torch.finfo(
        dtype
    ).eps * x.double().norm() * y.double().norm()


def test_layout_does_not_matter(name):
    x, y = pair()
    e = of(name, y)
    expected = estimate(e, x, y, 7)
    for other in (transposed, strided, offset):
        for a, b in [(x, other(y)), (other(x), y), (other(x), other(y))]:
            torch.testing.assert_close(estimate(e, a, b, 7), expected, rtol=1e-5, atol=1e-5)
    expanded = x[:1].expand(13, -1), y[:1].expand(13, -1)  # what the gradient of a sum looks like
    torch.testing.assert_close(
        estimate(of(name, expanded[1]), *expanded, 7),
        estimate(of(name, expanded[1]), *(t.contiguous() for t in expanded), 7),
    )


def transposed(t):
    return t.T.contiguous().T


def strided(t):
    wide = torch.full((2 * t.shape[0], 3 * t.shape[1]), torch.nan)
    wide[::2, ::3] = t
    return wide[::2, ::3]


def offset(t):
    return t.repeat(2, 1)[t.shape[0] :]


def test_copies_and_equality(name):
    x, y = pair()
    e = of(name, y)
    for other in (copy.deepcopy(e), copy.copy(e), pickle.loads(pickle.dumps(e))):
        assert torch.equal(estimate(other, x, y, 7), estimate(e, x, y, 7))
        if name not in ORACLES:  # an oracle holds a tensor, which has no equality of one bit
            assert other == e and hash(other) == hash(e)
    if takes_rate(name) and name not in ORACLES:
        assert build(name, 0.4) != build(name, 0.5)


def test_frozen(name):
    e = of(name, pair()[1])
    for field in vars(e):
        with pytest.raises(AttributeError):
            setattr(e, field, 0.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cuda(name, dtype):
    x, y = (t.cuda() for t in pair(40, dtype=dtype))
    e = of(name, y)
    result = estimate(e, x, y, 7)
    assert result.is_cuda and result.dtype == dtype
    assert torch.equal(result, e.contract(e.compress(x, 7), y))
    assert e.traits.varying_size or e.compress(x, 7).nbytes == e.kept_bytes(40, 5, dtype)
    wide = estimate(e, x.double(), y.double(), 7)
    assert (result.double() - wide).norm() <= 4 * torch.finfo(
        dtype
    ).eps * x.double().norm() * y.double().norm()
