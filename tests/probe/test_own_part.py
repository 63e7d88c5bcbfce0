"""Where .grad is not the product XᵀY alone: the product's own part is measured, and said."""

import pytest
import torch
from support.truth import measured, variances
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis.probe import Probe
from sketchvar.analysis.probe.step import Tally

S = 8
TABLE = {"estimators": ["uniform-rows"], "rates": [0.5]}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def batch():
    return torch.randn(S, 4, 6, generator=torch.Generator().manual_seed(1))


def true_variances():
    model, x = network(), batch()
    found = variances(model, lambda s: model(x[s : s + 1]).square().mean() / S, S)
    return {"0": found["0.weight"], "2": found["2.weight"]}


def penalty(model):
    return 0.5 * sum(p.square().sum() for p in model.parameters())


def none(model):
    return 0.0


def hook(change):
    """Hooks on the weights that change what reaches .grad."""

    def put(model):
        for p in model.parameters():
            p.register_hook(change)

    return put


def mask(g):
    g = g.clone()
    g[0] = 0
    return g


CHANGES = {
    "plain": (none, none),
    "penalty": (none, penalty),
    "scaled": (hook(lambda g: g / 2), none),
    "masked": (hook(mask), none),
    "clipped": (hook(lambda g: g.clamp(-1e-3, 1e-3)), none),
}


def step(model, extra, passes=1):
    """One measured gradient, in so many passes."""
    for part in batch().chunk(passes):
        ((model(part).square().mean() + extra(model)) / passes).backward()


def weights_of(probe):
    """The lines of weights; biases are changed by nothing here."""
    table = probe.coverage()
    return table[table["parameter"].str.endswith("weight")]


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.usefixtures("both_ways")
def test_the_products_own_variance(name, recwarn):
    model, (change, extra) = network(), CHANGES[name]
    change(model)
    with Probe(model, **TABLE) as probe:
        step(model, extra)
        probe.step()
    assert measured(probe.rows()) == pytest.approx(true_variances(), rel=2e-5)
    table = weights_of(probe)
    assert table["measured"].all()
    told = table["note"].str.contains("own part is measured")
    assert not told.any() if name == "plain" else told.all()
    assert any("own part" in str(w.message) for w in recwarn) == (name != "plain")


def test_reading_the_square_of_what_was_added_to_grad_would_be_wrong(monkeypatch):
    """The control: what the probe took C from before."""
    monkeypatch.setattr(Tally, "C", property(lambda self: self.gradient().double().square().sum()))
    model = network()
    with Probe(model, **TABLE) as probe, pytest.warns(UserWarning):
        step(model, penalty)
        probe.step()
    assert measured(probe.rows()) != pytest.approx(true_variances(), rel=0.1)


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "plain"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_accumulated_passes_are_measured_once_it_is_known(name):
    model, (change, extra) = network(), CHANGES[name]
    change(model)
    with Probe(model, **TABLE) as probe:
        for i in range(2):
            step(model, extra, passes=2)
            probe.step()
            reasons = weights_of(probe)["reason"]
            assert reasons.str.contains("was accumulated").all() if i == 0 else not any(reasons)
            model.zero_grad()
    assert set(probe.rows()["step"]) == {1}
    assert measured(probe.rows()) == pytest.approx(true_variances(), rel=2e-5)


def test_a_change_that_comes_later_is_noticed():
    """By a look at a few entries."""
    model = network()
    with Probe(model, **TABLE) as probe, pytest.warns(UserWarning, match="own part is measured"):
        for i in range(3):
            step(model, penalty if i == 2 else none)
            probe.step()
            assert (weights_of(probe)["note"] != "").all() == (i == 2)
            model.zero_grad()
    rows = probe.rows()
    for i in range(3):
        assert measured(rows[rows["step"] == i]) == pytest.approx(true_variances(), rel=2e-5)


class Tied(nn.Module):
    """A decoder that is its encoder's weight, transposed, in a function."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(12, 4)

    def forward(self, x, both=True):
        weight = self.encoder.weight if both else self.encoder.weight.detach()
        return F.linear(torch.tanh(self.encoder(x)), weight.t())


def test_a_weight_that_a_function_uses_too():
    model, x = Tied(), torch.randn(S, 12)
    own = variances(model, lambda s: F.mse_loss(model(x[s : s + 1], False), x[s : s + 1]) / S, S)
    with Probe(model, **TABLE) as probe, pytest.warns(UserWarning, match="own part"):
        F.mse_loss(model(x), x).backward()
        probe.step()
    assert measured(probe.rows())["encoder"] == pytest.approx(own["encoder.weight"], rel=2e-5)


class Attends(nn.Module):
    """Reads its child's weight and never calls it, as attention by one function does."""

    def __init__(self):
        super().__init__()
        self.inner, self.head, self.unused = nn.Linear(6, 6), nn.Linear(6, 3), nn.Linear(6, 6)

    def forward(self, x):
        return self.head(F.linear(x, self.inner.weight))


def test_reasons_are_true():
    model = Attends()
    with Probe(model, **TABLE) as probe, pytest.warns(UserWarning, match="1 of 3 layers"):
        model(torch.randn(S, 6)).square().mean().backward()
        probe.step()
        model.zero_grad()
    reasons = probe.coverage().set_index("parameter")["reason"]
    assert "something else reads the weight" in reasons["inner.weight"]
    assert reasons["unused.weight"] == "no gradient reached it" and not reasons["head.weight"]
