"""A probed model can be saved, copied and transformed, and reads what a plain one does: nothing
that the probe cannot read stops it.
"""

import copy
import gc
import io
import pickle

import pytest
import torch
from support.truth import measured, variances
from torch import nn
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.nn.utils import prune, spectral_norm
from torch.nn.utils.parametrizations import weight_norm

from sketchvar.analysis.probe import Probe

S = 8
TABLE = {"estimators": ["uniform-rows"], "rates": [0.5]}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "duplicate", [saved, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
@pytest.mark.parametrize("examples", [0, lambda x: 0])
def test_copies_made_while_attached(duplicate, examples):
    model, x = network(), torch.randn(S, 6)
    with Probe(model, examples=examples, **TABLE) as probe:
        model(x).square().mean().backward()
        twin = duplicate(model)
        probe.step()
        assert torch.equal(twin(x), model(x))
        assert [vars(a).keys() for a in twin.modules()] == [vars(a).keys() for a in model.modules()]
        with Probe(twin, **TABLE) as other:  # and can be probed, as an average of weights is
            twin(x).square().mean().backward()
            other.step()
    assert measured(other.rows()) == measured(probe.rows())


@pytest.mark.parametrize(("by_example", "length"), [(False, 4), (True, 4), (True, 64)])
def test_a_measured_step_leaves_no_circle_of_references(by_example, length):
    model, x = network(), torch.randn(S, length, 6)
    with Probe(model, by_example, **TABLE) as probe:
        for _ in range(3):
            gc.collect()
            gc.disable()
            try:
                model(x).square().mean().backward()
                probe.step()
                left = gc.collect()
            finally:
                gc.enable()
    assert len(probe.rows()) == 6
    assert left == 0  # else every step stays in memory until the collector runs


def test_functional_transforms_while_attached():
    model, x = network(), torch.randn(S, 6)
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(w, row):
        return functional_call(model, w, (row[None],)).square().sum()

    def all_of_it():
        return [
            vmap(grad(loss), (None, 0))(weights, x)["0.weight"],
            vmap(model)(x),
            jvp(model, (x,), (x,))[1],
            jacrev(lambda x: model(x).sum(0))(x),
        ]

    expected = all_of_it()
    with Probe(model, **TABLE) as probe:
        found = all_of_it()
        model(x).square().sum().backward()
        probe.step()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    true = variances(model, lambda s: model(x[s : s + 1]).square().sum(), S)
    assert measured(probe.rows())["0"] == pytest.approx(true["0.weight"], rel=2e-5)


@pytest.mark.parametrize("kind", ["jagged", "coo", "csr"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_inputs_without_rows_are_reported(kind):
    x = {
        "jagged": lambda: torch.nested.nested_tensor(
            [torch.randn(3, 6), torch.randn(5, 6)], layout=torch.jagged
        ),
        "coo": lambda: torch.randn(S, 6).relu().to_sparse(),
        "csr": lambda: torch.randn(S, 6).relu().to_sparse_csr(),
    }[kind]()
    gradients = []
    for probed in (False, True):
        model = network()
        with Probe(model, **TABLE) if probed else io.BytesIO() as probe:
            out = model(x)
            (out.values() if out.is_nested else out).square().sum().backward()
            if probed:
                probe.step()
        gradients.append(model[0].weight.grad)
    torch.testing.assert_close(*gradients)
    assert "tensor" in probe.coverage()["reason"][0]


@pytest.mark.parametrize("length", [4, 60])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_complex_layers_train_as_before_and_are_reported(length):
    x, gradients = torch.randn(S, length, 6, dtype=torch.cfloat), []
    for probed in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 3, dtype=torch.cfloat))
        with Probe(model, **TABLE) if probed else io.BytesIO() as probe:
            model(x).abs().square().mean().backward()
            if probed:
                probe.step()
        gradients.append(model[0].weight.grad)
    assert torch.equal(*gradients) and probe.rows().empty
    assert "complex" in probe.coverage()["reason"][0]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_weights_that_are_made_of_others_are_reported():
    torch.manual_seed(0)
    model = nn.Sequential(
        weight_norm(nn.Linear(6, 6)), spectral_norm(nn.Linear(6, 6)),
        prune.l1_unstructured(nn.Linear(6, 6), "weight", 0.5),
        nn.utils.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 3),
    ).eval()  # fmt: skip
    x = torch.randn(S, 6)
    with Probe(model, **TABLE) as probe:
        model(x).square().mean().backward()
        probe.step()
    true = variances(model, lambda s: model(x[s : s + 1]).square().mean() / S, S)
    assert measured(probe.rows()) == pytest.approx({"4": true["4.weight"]}, rel=2e-5)
    reasons = probe.coverage().query("not measured")["reason"]
    assert reasons.str.contains("made of others|a parametrization makes").all()


def test_a_model_whose_forwards_were_all_replaced_is_told_so():
    model = network()
    for module in model:
        module.forward = module.forward
    with pytest.raises(ValueError, match=r"nothing to probe.*forward was replaced on the instance"):
        Probe(model)


def test_out_of_place_options_get_an_answer():
    with pytest.raises(TypeError, match="give options by name"):
        Probe(network(), ["countsketch"], [0.5])
    with pytest.raises(ValueError, match=r"rates= needs estimators="):
        Probe(network(), rates=0.5)
    probe = Probe(network(), estimators="countsketch", rates=0.5)
    assert [(choice.name, choice.rate) for choice in probe.choices] == [("countsketch", 0.5)]
