"""SketchedLinear and its kin: everything exact but the weight gradient, and that one the estimate
bit for bit.
"""

import copy
import pickle

import pytest
import torch
from support.saved import saved_bytes
from torch import nn
from torch.nn.functional import unfold
from torch.utils.checkpoint import checkpoint

from sketchvar.estimators import (
    CATALOG,
    CountSketch,
    Exact,
    Gaussian,
    SketchedConv2d,
    SketchedLinear,
    UniformRows,
    build,
    estimate,
)
from sketchvar.estimators.catalog import ORACLES
from sketchvar.estimators.layers.linear import sketched_class
from sketchvar.estimators.layers.opaque import next_seed
from sketchvar.estimators.layers.product import NO_SECOND_DERIVATIVE

USABLE = [name for name in CATALOG if name not in ORACLES | {"exact"}]


THIRD = CountSketch(0.3)


def train_estimate(estimator, x, y, exact):
    """What a layer's weight gradient is to be, transposed: the estimate, or the plain layer's
    ``exact`` where as much as X is kept.
    """
    if estimator.kept_bytes(*x.shape, x.dtype) >= x.nbytes:
        return exact.T
    return estimate(estimator, x, y, seed_after(4))


def pair(p=6, q=5, estimator=THIRD, dtype=torch.float32, **options):
    """A plain layer and a sketched one with the same weights."""
    plain = nn.Linear(p, q, dtype=dtype, **options)
    sketched = SketchedLinear(p, q, estimator, dtype=dtype, **options)
    sketched.load_state_dict(plain.state_dict())
    return plain, sketched


def backward(layer, x, y, seed=0):
    """Output, and gradients of input, weight and bias."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    layer.zero_grad()
    torch.manual_seed(seed)
    out = layer(x)
    out.backward(y)
    bias = None if layer.bias is None else layer.bias.grad
    return out.detach(), x.grad, layer.weight.grad, bias


def seed_after(seed):
    torch.manual_seed(seed)
    return next_seed()


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7), (2, 3, 2, 7)])
def test_all_is_exact_but_the_weight_gradient_which_is_the_estimate(name, shape):
    estimator = build(name, 0.3)
    plain, sketched = pair(7, 5, estimator)
    x = torch.randn(shape if len(shape) > 1 else (11, 7))
    y = torch.randn(*x.shape[:-1], 5)
    out, for_x, exact, for_bias = backward(plain, x, y)
    found = backward(sketched, x, y, seed=4)
    for a, b in zip((out, for_x, for_bias), (found[0], found[1], found[3]), strict=True):
        assert torch.equal(a, b)
    rows = x.flatten(0, -2), y.flatten(0, -2)
    assert torch.equal(found[2].T, train_estimate(estimator, *rows, exact))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", USABLE)
def test_narrow_and_wide_dtypes(name, dtype):
    plain, sketched = pair(24, 5, build(name, 0.5), dtype)
    x, y = torch.randn(16, 24, dtype=dtype), torch.randn(16, 5, dtype=dtype)
    out, for_x, exact, for_bias = backward(plain, x, y)
    found = backward(sketched, x, y, seed=4)
    assert (
        torch.equal(out, found[0])
        and torch.equal(for_x, found[1])
        and torch.equal(for_bias, found[3])
    )
    assert torch.equal(found[2].T, train_estimate(build(name, 0.5), x, y, exact))


@pytest.mark.parametrize("name", USABLE)
def test_what_a_layer_keeps_is_kept_bytes_and_the_weight(name):
    estimator = build(name, 0.25)
    layer = SketchedLinear(32, 8, estimator)
    x = torch.randn(4, 16, 32, requires_grad=True)
    torch.manual_seed(4)
    found, _ = saved_bytes(lambda: layer(x))
    expected = estimator.kept_bytes(64, 32, torch.float32)
    if estimator.traits.varying_size:
        expected = estimator.compress(x.detach().flatten(0, 1), seed_after(4)).nbytes
    assert found == expected + layer.weight.nbytes


def test_nothing_is_compressed_when_it_cannot_be_used():
    plain, layer = pair()
    x = torch.randn(20, 6, requires_grad=True)
    y = torch.randn(20, 5)
    exact = backward(plain, x, y)
    layer.eval()
    assert all(torch.equal(a, b) for a, b in zip(exact, backward(layer, x, y), strict=True))
    layer.train()
    with torch.no_grad():
        assert not layer(x).requires_grad
    layer.sketch(UniformRows(1.0))
    assert all(torch.equal(a, b) for a, b in zip(exact, backward(layer, x, y), strict=True))
    layer.sketch(Exact())
    assert all(torch.equal(a, b) for a, b in zip(exact, backward(layer, x, y), strict=True))


def test_a_frozen_weight_keeps_nothing_of_the_input():
    _, layer = pair()
    layer.weight.requires_grad_(False)
    x = torch.randn(20, 6, requires_grad=True)
    found, out = saved_bytes(lambda: layer(x))
    assert found == layer.weight.nbytes
    out.sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None


def test_no_seed_is_drawn_in_eval_and_the_stream_does_not_depend_on_gradients():
    _, layer = pair()
    x = torch.randn(20, 6)
    start = torch.get_rng_state()
    layer.eval()(x)
    assert torch.equal(torch.get_rng_state(), start)
    layer.train()(x)
    after = torch.get_rng_state()
    assert not torch.equal(after, start)
    torch.set_rng_state(start)
    with torch.no_grad():
        layer(x)
    assert torch.equal(
        torch.get_rng_state(), after
    )  # else dropout and sketch part ways under checkpointing


def test_mean_gradient_is_the_plain_one_and_a_wrong_scale_is_noticed():
    plain, layer = pair(estimator=UniformRows(0.25))
    x, y = torch.randn(32, 6), torch.randn(32, 5)
    exact = backward(plain, x, y)[2]
    draws = torch.stack([backward(layer, x, y, seed)[2] for seed in range(1000)])
    error = (draws - exact).flatten(1)
    z = error.mean(0) / (error.std(0) / len(draws) ** 0.5)
    off = (draws * 1.25 - exact).flatten(1)  # the control: what a forgotten scale would do
    z_off = off.mean(0) / (off.std(0) / len(draws) ** 0.5)
    limit = 4.5  # 30 entries: a false alarm once in 5000 seeds, and this seed is fixed
    assert z.abs().max() < limit < z_off.abs().max()


def test_each_call_draws_anew_and_manual_seed_repeats_it():
    _, layer = pair()
    x, y = torch.randn(20, 6), torch.randn(20, 5)
    assert torch.equal(backward(layer, x, y, 1)[2], backward(layer, x, y, 1)[2])
    assert not torch.equal(backward(layer, x, y, 1)[2], backward(layer, x, y, 2)[2])
    torch.manual_seed(0)
    layer.zero_grad()
    layer(x).backward(y)  # the same input twice: another pass, another draw
    first = layer.weight.grad.clone()
    layer(x).backward(y)
    assert not torch.equal(layer.weight.grad, 2 * first)
    second = layer.weight.grad - first
    torch.manual_seed(0)
    seeds = [next_seed(), next_seed()]
    for g, seed in zip((first, second), seeds, strict=True):
        assert torch.allclose(g.T, estimate(layer.estimator, x, y, seed), atol=1e-5)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_gradient_of_the_same_seeds(reentrant):
    model = nn.Sequential(
        nn.Linear(6, 8),
        SketchedLinear(8, 8, CountSketch(0.3)),
        nn.Dropout(0.3),
        SketchedLinear(8, 4, Gaussian(0.3)),
    )
    x = torch.randn(30, 6, requires_grad=True)

    def gradients(run):
        model.zero_grad()
        torch.manual_seed(3)
        out = run(x)
        out.square().sum().backward()
        return [out.detach(), *(p.grad.clone() for p in model.parameters())]

    plain = gradients(model)
    again = gradients(lambda x: checkpoint(model, x, use_reentrant=reentrant))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_autocast_runs_as_the_plain_layer_does():
    plain, layer = pair(8, 5, CountSketch(0.25))
    x, y = torch.randn(16, 8), torch.randn(16, 5)
    with torch.autocast("cpu", torch.bfloat16):
        out, for_x, _, for_bias = backward(plain, x, y.bfloat16())
        found = backward(layer, x, y.bfloat16(), seed=4)
        kept, _ = saved_bytes(lambda: layer(x.requires_grad_()))
    assert found[0].dtype == torch.bfloat16 and found[2].dtype == torch.float32
    assert (
        torch.equal(out, found[0])
        and torch.equal(for_x, found[1])
        and torch.equal(for_bias, found[3])
    )
    expected = estimate(CountSketch(0.25), x.detach().bfloat16(), y.bfloat16(), seed_after(4))
    assert torch.equal(found[2].T, expected.float())
    assert kept == CountSketch(0.25).kept_bytes(16, 8, torch.bfloat16) + layer.weight.nbytes


def test_grad_scaler_with_float16():
    plain, layer = pair(8, 5, UniformRows(0.5))
    before = layer.weight.detach().clone()
    optimizer, scaler = (
        torch.optim.SGD(layer.parameters(), 0.1),
        torch.amp.GradScaler("cpu", init_scale=1024.0),
    )
    x = torch.randn(16, 8)
    torch.manual_seed(4)
    with torch.autocast("cpu", torch.float16):
        loss = layer(x).float().square().mean()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    y = (2 * (x.half() @ before.half().T + plain.bias.half()).float() / 80 * 1024).half()
    expected = estimate(UniformRows(0.5), x.half(), y, seed_after(4)).float() / 1024
    assert torch.allclose(layer.weight.grad.T, expected, rtol=2e-2, atol=1e-3)
    scaler.step(optimizer)
    assert not torch.equal(layer.weight, before)


def test_non_contiguous_inputs_and_gradients():
    plain, layer = pair()
    x, y = torch.randn(6, 20).T, torch.randn(5, 20).T
    exact, found = backward(plain, x, y), backward(layer, x, y, seed=4)
    assert torch.equal(exact[0], found[0])
    for i in (1, 3):
        assert torch.allclose(exact[i], found[i], atol=1e-6)
    expected = estimate(layer.estimator, x.contiguous(), y.contiguous(), seed_after(4))
    assert torch.allclose(found[2].T, expected, atol=1e-5)
    layer(x).sum().backward()  # an expanded gradient


@pytest.mark.parametrize("shape", [(0, 6), (2, 0, 6), (1, 6), (6,)])
def test_empty_and_single_rows_are_plain(shape):
    plain, layer = pair()
    x, y = torch.randn(shape), torch.randn(*shape[:-1], 5)
    for a, b in zip(backward(plain, x, y), backward(layer, x, y), strict=True):
        assert torch.equal(a, b)


def test_batches_of_every_size():
    _, layer = pair()
    for n in (3, 50, 2, 17):
        backward(layer, torch.randn(n, 6), torch.randn(n, 5))


def test_double_backward_is_refused():
    _, layer = pair()
    x = torch.randn(20, 6, requires_grad=True)
    (for_x,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(
        NotImplementedError, match="sketched layer has no second derivative"
    ) as caught:
        for_x.square().sum().backward()
    assert str(caught.value) == NO_SECOND_DERIVATIVE


def test_gradients_can_be_asked_for_one_by_one():
    """By torch.autograd.grad, which leaves ``.grad`` alone; what is not asked for is not drawn."""
    _, layer = pair()
    x, y = torch.randn(50, 6), torch.randn(50, 5)
    torch.manual_seed(3)
    layer(x).backward(y)
    expected, layer.weight.grad = layer.weight.grad, None
    torch.manual_seed(3)
    (found,) = torch.autograd.grad(layer(x), layer.weight, y)
    assert torch.equal(found, expected) and layer.weight.grad is None
    (only_bias,) = torch.autograd.grad(layer(x), layer.bias, y)
    torch.testing.assert_close(only_bias, y.sum(0))


def test_in_place_activation_hooks_and_no_bias():
    model = nn.Sequential(
        SketchedLinear(6, 8, CountSketch(0.3), bias=False),
        nn.ReLU(inplace=True),
        SketchedLinear(8, 1, Gaussian(0.3)),
    )
    seen = []
    model[2].register_forward_hook(lambda *_: seen.append("forward"))
    model[2].register_full_backward_hook(lambda *_: seen.append("backward"))
    model(torch.randn(20, 6)).sum().backward()
    assert seen == ["forward", "backward"] and model[0].weight.grad.shape == (8, 6)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_work_and_are_independent(duplicate):
    _, layer = pair()
    twin = duplicate(layer)
    assert type(twin) is SketchedLinear and twin.estimator == layer.estimator
    x, y = torch.randn(20, 6), torch.randn(20, 5)
    assert torch.equal(backward(layer, x, y, 1)[2], backward(twin, x, y, 1)[2])
    with torch.no_grad():
        twin.weight.zero_()
    assert layer.weight.abs().max() > 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"dilation": 2, "bias": False},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "circular"},
        {"stride": 3, "padding": (1, 0)},
    ],
)
@pytest.mark.parametrize("batched", [True, False])
def test_convolutions(options, batched):
    estimator = UniformRows(0.1)
    plain = nn.Conv2d(3, 4, 3, **options)
    layer = SketchedConv2d(3, 4, 3, estimator=estimator, **options)
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 9, 8) if batched else torch.randn(3, 9, 8)
    y = torch.randn_like(plain(x))
    exact, found = backward(plain, x, y), backward(layer, x, y, seed=4)
    assert torch.equal(exact[0], found[0]) and torch.allclose(exact[1], found[1], atol=1e-5)
    if layer.bias is not None:
        assert torch.allclose(exact[3], found[3], atol=1e-5)
    if "padding_mode" in options or options.get("padding") == "same":
        mode = "constant" if options["padding"] == "same" else "circular"
        x, options = nn.functional.pad(x, (1, 1, 1, 1), mode), {}
    geometry = {k: v for k, v in options.items() if k in ("stride", "padding", "dilation")}
    patches = unfold(x if batched else x[None], 3, **geometry).mT.flatten(0, 1)
    rows = (y if batched else y[None]).flatten(2).mT.flatten(0, 1)
    expected = estimate(estimator, patches, rows, seed_after(4))
    assert torch.allclose(found[2].flatten(1).T, expected, atol=1e-5)
    assert not torch.allclose(found[2], exact[2], atol=1e-5)  # it was sketched


def test_a_convolution_whose_patches_would_outweigh_its_input_stays_plain():
    plain, layer = nn.Conv2d(3, 4, 3), SketchedConv2d(3, 4, 3, estimator=UniformRows(0.5))
    layer.load_state_dict(plain.state_dict())
    x, y = torch.randn(2, 3, 9, 9), torch.randn(2, 4, 7, 7)
    for a, b in zip(backward(plain, x, y), backward(layer, x, y), strict=True):
        assert torch.equal(a, b)


def test_errors_say_what_to_do(unchecked):
    with pytest.raises(
        TypeError, match=r"needs an Estimator, got float; pass one, as in CountSketch\(0.1\)"
    ):
        SketchedLinear(3, 3, 0.1)
    with pytest.raises(TypeError, match="no sketched layer for Bilinear"):
        sketched_class(nn.Bilinear)
    for x, message in (
        (torch.randn(4, 5), "shapes"),
        (torch.ones(4, 3).long(), "dtype"),
        (torch.ones(4, 3).double(), "dtype"),
    ):
        with pytest.raises(RuntimeError, match=message):  # the plain layer's own errors
            SketchedLinear(3, 3, CountSketch(0.1))(x)
    assert SketchedLinear(3, 3, CountSketch(0.1))(input=torch.randn(4, 3)).shape == (4, 3)
    assert "estimator=CountSketch(rate=0.1" in repr(SketchedLinear(3, 3, CountSketch(0.1)))
