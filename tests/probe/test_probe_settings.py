"""The probe in the settings of real training: precision, checkpointing, compilation, and no waiting
for the device.
"""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils.checkpoint import checkpoint

from sketchvar.analysis.probe import Probe

B = 4


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x):
        return x + self.down(self.up(x).tanh())


def network():
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block(), nn.Linear(6, 3))


def batch():
    return torch.randn(B, 5, 6, generator=torch.Generator().manual_seed(1))


def measured(model, call, x, **options):
    with Probe(model, **options) as probe:
        call(x).square().sum().backward()
    return probe.read()


def assert_equal(found, expected, rtol=1e-5):
    assert list(found) == list(expected)
    for name, layer in expected.items():
        torch.testing.assert_close(found[name].example_sq, layer.example_sq, rtol=rtol, atol=0)
        torch.testing.assert_close(found[name].moments.C, layer.moments.C, rtol=rtol, atol=0)
        torch.testing.assert_close(found[name].moments.x_sq, layer.moments.x_sq, rtol=rtol, atol=0)
        torch.testing.assert_close(found[name].moments.y_sq, layer.moments.y_sq, rtol=rtol, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("both_ways")
def test_autocast(dtype):
    """Every example alone, under the same autocast; C is of the weight gradient itself."""
    x, model = batch(), network()

    def call(x):
        with torch.autocast("cpu", dtype=dtype):
            return model(x).float()

    layers = measured(model, call, x)
    assert {layer.dtype for layer in layers.values()} == {dtype}
    for name, layer in layers.items():
        grad = model.get_submodule(name).weight.grad
        torch.testing.assert_close(layer.moments.C, grad.double().square().sum(), rtol=1e-6, atol=0)
    for s in range(B):
        model.zero_grad()
        call(x[s : s + 1]).square().sum().backward()
        for name, layer in layers.items():
            alone = model.get_submodule(name).weight.grad.double().square().sum()
            torch.testing.assert_close(layer.example_sq[s], alone, rtol=0.05, atol=0)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.usefixtures("both_ways")
def test_checkpointing(reentrant):
    x, model = batch().requires_grad_(), network()

    def call(x):
        for part in model:
            x = checkpoint(part, x, use_reentrant=reentrant)
        return x

    plain = network()
    assert_equal(measured(model, call, x), measured(plain, plain, x))


def test_reentrant_checkpointing_of_a_weight_with_two_uses_is_reported():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    x = batch().requires_grad_()

    def call(x, reentrant):
        for _ in range(2):
            x = checkpoint(model, x, use_reentrant=reentrant)
        return x

    expected = measured(model, lambda x: model(model(x)), x)
    assert_equal(measured(model, lambda x: call(x, False), x), expected)
    with pytest.warns(
        UserWarning, match="used 2 times under reentrant checkpointing; use_reentrant=False"
    ):
        assert not measured(model, lambda x: call(x, True), x)


def compiled_model(model):
    return torch.compile(model, backend="aot_eager")


def compiled_parts(model):
    for block in model[:2]:
        block.compile(backend="aot_eager")
    return model


def compiled_function(model):
    return torch.compile(lambda x: model(x), backend="aot_eager")


@pytest.mark.parametrize("called_before", [False, True])
@pytest.mark.parametrize("compiled", [compiled_model, compiled_parts, compiled_function])
def test_compiled(compiled, called_before, unchecked):
    """Attached before the first compiled call or after it: measured steps run eagerly, all others
    the same graph.
    """
    x, model = batch(), network()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    call = compiled(model)
    if called_before:
        call(x).sum().backward()
        model.zero_grad()
    found = []
    with Probe(call if isinstance(call, nn.Module) else model, every=2) as probe:
        for _ in range(5):
            call(x).square().sum().backward()
            if probe.attached:
                found.append(probe.read())
            model.zero_grad()
            probe.step()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1 + (
        compiled is compiled_parts
    )
    plain = network()
    expected = measured(plain, plain, x)
    assert len(found) == 3
    for each in found:
        assert_equal(each, expected)


@pytest.mark.usefixtures("both_ways")
def test_a_step_does_not_wait_for_the_device():
    """Under a fake mode, where no number exists, anything that asks for one fails; reading
    afterwards has to.
    """
    with FakeTensorMode():
        model = nn.Sequential(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 8), nn.Linear(8, 2)
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        probe = Probe(model)
        with probe:
            model(torch.randn(B, 5, 8)).square().sum().backward()
            optimizer.step()
            with pytest.raises(DataDependentOutputException):
                probe.read()


@pytest.mark.usefixtures("both_ways")
def test_a_pass_for_other_gradients_does_not_enter():
    """An adversarial step: the gradient of the input first, that of the weights at another
    input.
    """
    x, plain, model = batch().requires_grad_(), network(), network()
    with Probe(model) as probe:
        (slope,) = torch.autograd.grad(model(x).square().sum(), x)
        moved = (x + slope.sign()).detach()
        model(moved).square().sum().backward()
    assert_equal(probe.read(), measured(plain, plain, moved))


@pytest.mark.usefixtures("both_ways")
def test_second_derivatives_are_the_models_own_and_reported():
    x, gradients = batch().requires_grad_(), []
    for probed in (False, True):
        model = network()
        with Probe(model) if probed else nullcontext() as probe:
            (slope,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
            slope.square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    assert not probe.read()
    assert "came twice" in probe.coverage()["reason"][0]


def test_an_optimizer_within_the_backward_pass_is_reported():
    model = network()
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with pytest.warns(UserWarning, match="was not in .grad at the end of the backward pass"):
        assert not measured(model, model, batch())
