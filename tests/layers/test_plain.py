"""A sketched layer behaves as the plain one under all that people do to a layer: writing in place,
torch.func, forward mode, nested and sparse inputs, checkpointing without the random state.
"""

import copy
import gc

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils.checkpoint import CheckpointError, checkpoint
from transformers.pytorch_utils import Conv1D

from sketchvar.estimators import (
    CATALOG,
    BernoulliRows,
    Centered,
    CountSketch,
    StochasticRounding,
    Then,
    build,
    sketch_linears,
)
from sketchvar.estimators.catalog import ORACLES
from sketchvar.estimators.layers import opaque, product

USABLE = {name: build(name, 0.2) for name in CATALOG if name not in ORACLES | {"exact"}}
RANDOM_SIZE = {
    "bernoulli": BernoulliRows(0.2),
    "bernoulli+rounding": Then(BernoulliRows(0.2), StochasticRounding(2)),
    "centered(bernoulli)": Centered(BernoulliRows(0.2)),
}


def zero_first(out):
    out[..., 0] = 0
    return out


IN_PLACE = {
    "relu": lambda out: out.relu_(),
    "scale": lambda out: out.mul_(2),
    "shift": lambda out: out.add_(1),
    "assign": zero_first,
}
LAYERS = {
    "linear": (lambda: nn.Linear(64, 8), [(50, 64), (5, 10, 64), (2, 5, 5, 64)]),
    "conv1d": (lambda: Conv1D(8, 64), [(50, 64), (5, 10, 64), (2, 5, 5, 64)]),
    "conv2d": (lambda: nn.Conv2d(3, 4, 8, stride=8), [(3, 64, 64), (2, 3, 48, 48)]),
}
CASES = [(kind, shape) for kind, (_, shapes) in LAYERS.items() for shape in shapes]


def gradients(layer, write, x):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(3)
    out = write(layer(x))
    out.square().sum().backward()
    return out.detach(), x.grad, layer.bias.grad, layer.weight.grad


@pytest.mark.parametrize("write", IN_PLACE.values(), ids=IN_PLACE)
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_writing_in_place_to_the_output(kind, shape, write):
    plain = LAYERS[kind][0]()
    layer = copy.deepcopy(plain)
    sketch_linears(layer, CountSketch(0.1))
    x = torch.randn(shape)
    expected, found = gradients(plain, write, x), gradients(layer, write, x)
    for a, b in zip(expected[:3], found[:3], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    apart = gradients(layer, lambda out: write(out.clone()), x)
    torch.testing.assert_close(found[3], apart[3])  # the sketch is that of a copy
    assert not torch.allclose(found[3], expected[3])


def test_without_the_cure_autograd_refuses(monkeypatch):
    monkeypatch.setattr(product, "not_view", lambda out: out)
    layer = nn.Linear(64, 8)
    sketch_linears(layer, CountSketch(0.1))
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        layer(torch.randn(5, 10, 64)).relu_()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 2))


def by_func(model, x):
    """What torch.func and its kin say of a model, each by its name."""
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(w, row):
        return functional_call(model, w, (row[None],)).square().sum()

    def total(x):
        return model(x).sum(0)

    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(model(forward_ad.make_dual(x, x))).tangent
    return {
        "vmap": vmap(model)(x),
        "grad": vmap(grad(loss), (None, 0))(weights, x)["0.weight"],
        "jvp": jvp(model, (x,), (x,))[1],
        "jacrev": jacrev(total)(x),
        "jacfwd": jacfwd(total)(x),
        "hessian": hessian(lambda x: model(x).square().sum())(x[:2]),
        "dual numbers": tangent,
        "batched backward": torch.autograd.functional.jacobian(total, x, vectorize=True),
    }


@pytest.mark.parametrize("name", ["countsketch", "gaussian", "norm-rows", "rounding:2"])
def test_functional_transforms_see_the_plain_layer(name):
    x, model = torch.randn(50, 64), network()
    expected = by_func(model, x)
    sketch_linears(model, USABLE[name])
    for what, value in by_func(model, x).items():
        torch.testing.assert_close(value, expected[what], msg=what)
    model(x).square().sum().backward()
    assert not torch.allclose(model[0].weight.grad, exact_gradient(x))  # and it is sketched


def exact_gradient(x):
    model = network()
    model(x).square().sum().backward()
    return model[0].weight.grad


def nested(layout):
    return torch.nested.nested_tensor([torch.randn(30, 64), torch.randn(20, 64)], layout=layout)


@pytest.mark.parametrize(
    "x",
    [
        lambda: nested(torch.jagged),
        lambda: nested(torch.strided),
        lambda: torch.randn(50, 64).relu().to_sparse(),
        lambda: torch.randn(50, 64).relu().to_sparse_csr(),
    ],
    ids=["jagged", "nested", "coo", "csr"],
)
@pytest.mark.filterwarnings("ignore:.*prototype:UserWarning", "ignore:.*beta:UserWarning")
def test_nested_and_sparse_inputs_run_the_plain_layer(x):
    found = []
    x = x()
    for sketch in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(64, 8)
        if sketch:
            sketch_linears(layer, CountSketch(0.1))
        out = layer(x)
        loss = sum(part.square().sum() for part in (out.unbind() if out.is_nested else [out]))
        loss.backward()
        found.append(layer.weight.grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("estimator", [*USABLE.values(), *RANDOM_SIZE.values()], ids=str)
def test_checkpointing_without_the_random_state(estimator):
    model = network()
    sketch_linears(model, estimator)
    for _ in range(3):
        x = torch.randn(50, 64)
        checkpoint(model, x, use_reentrant=False, preserve_rng_state=False).sum().backward()
    assert model[0].weight.grad.isfinite().all()


@pytest.mark.parametrize("estimator", RANDOM_SIZE.values(), ids=RANDOM_SIZE)
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_payload_of_random_size_is_the_same_under_checkpointing(estimator, reentrant):
    model, x = network(), torch.randn(50, 64, requires_grad=True)
    sketch_linears(model, estimator)
    found = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=reentrant)):
        model.zero_grad()
        torch.manual_seed(1)
        run(x).square().sum().backward()
        found.append(model[0].weight.grad)
    assert torch.equal(*found)


def test_a_payload_of_random_size_as_it_is_would_be_refused(monkeypatch):
    monkeypatch.setattr(product, "is_checkpointed", lambda: False)
    model = network()
    sketch_linears(model, BernoulliRows(0.2))
    with pytest.raises(CheckpointError, match="different metadata"):
        for _ in range(20):
            out = checkpoint(
                model, torch.randn(50, 64), use_reentrant=False, preserve_rng_state=False
            )
            out.sum().backward()


def test_converting_again_and_again_leaves_nothing_behind():
    model = network()
    gc.collect()
    before = len(opaque.ESTIMATORS)
    for step in range(300):
        sketch_linears(model, CountSketch(0.1 + step / 1000))
    assert len(opaque.ESTIMATORS) <= before + 1
    twin = network()
    sketch_linears(twin, CountSketch(0.1 + 299 / 1000))
    assert twin[0]._handle == model[0]._handle  # equal estimators have one number
    del model
    gc.collect()
    assert opaque.numbered(twin[0]._handle) == twin[0].estimator
