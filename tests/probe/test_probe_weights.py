"""Losses that are a mean over tokens, of which examples have different numbers: the minibatch
variance against redrawn batches, and what is refused.
"""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis import noise
from sketchvar.analysis.probe import Probe, count_labels

P, S, LENGTH = 5, 16, 12


def model_of():
    torch.manual_seed(0)
    return nn.Linear(P, 3)


def draw(seed):
    """Sequences of 1 to 12 tokens that all lean one way: a strong signal."""
    g = torch.Generator().manual_seed(seed)
    x = 0.5 * torch.randn(S, LENGTH, P, generator=g) + 1
    sizes = torch.randint(1, LENGTH + 1, (S, 1), generator=g)
    labels = torch.zeros(S, LENGTH, dtype=torch.long)
    return x, labels.masked_fill(torch.arange(LENGTH) >= sizes, -100)


def loss(model, batch):
    x, labels = batch
    return F.cross_entropy(model(x).flatten(0, 1), labels.flatten())


def test_the_form_with_weights_is_that_of_redrawn_batches():
    model, count = model_of(), 400
    redrawn = noise.redraw(model, loss, map(draw, range(count)), count)["weight"]
    forms = {"weights": [], "plain": []}
    for seed in range(count, 2 * count):
        x, labels = draw(seed)
        with Probe(model, weights=(labels != -100).sum(1)) as probe, noise.unchanged(model):
            loss(model, (x, labels)).backward()
        layer = probe.read()[""]
        squares, C = layer.example_sq, layer.moments.C
        forms["plain"].append(noise.by_example(squares, C))
        rows = noise.compare([layer], ["gaussian"], 0.2)
        forms["weights"].append(torch.tensor(rows["minibatch_example"].iloc[0]))
    ratio = {name: float(torch.stack(each).mean() / redrawn.value) for name, each in forms.items()}
    error = float(redrawn.stderr / redrawn.value)
    assert error < 0.1
    assert 0.95 - 3 * error < ratio["weights"] < 1 + 3 * error  # to first order: 0.97 to 1
    assert ratio["plain"] > 2  # the must-fail control


def test_equal_weights_give_the_plain_form():
    x, _ = draw(0)
    found = []
    for weights in (None, torch.full((S,), 7)):
        model = model_of()
        with Probe(model, weights=weights, exact_errors=True) as probe:
            loss(model, (x, torch.zeros(S, LENGTH, dtype=torch.long))).backward()
        found.append(noise.compare(probe.read().values(), ["gaussian"], 0.2).iloc[0])
    plain, weighed = found
    assert weighed["minibatch_example"] == pytest.approx(plain["minibatch_example"], rel=1e-5)
    for name in ("variance_stderr", "alpha_stderr", "minibatch_example_stderr", "ratio_stderr"):
        assert weighed[name] == pytest.approx(plain[name], rel=0.1)


class Labelled(nn.Module):
    """As a Hugging Face model takes its labels."""

    def __init__(self, shifted):
        super().__init__()
        self.linear, self.shifted = model_of(), shifted

    def forward(self, x, labels=None):
        logits = self.linear(x)
        if self.shifted:
            logits, labels = logits[:, :-1], labels[:, 1:]
        return SimpleNamespace(loss=F.cross_entropy(logits.flatten(0, 1), labels.flatten()))


@pytest.mark.parametrize("shifted", [False, True])
def test_labels_say_what_counts(shifted):
    x, labels = draw(1)
    model = Labelled(shifted)
    with Probe(model, weights=partial(count_labels, shifted=shifted)) as probe:
        model(x, labels=labels).loss.backward()
    layer = probe.read()["linear"]
    sizes = (labels[:, int(shifted) :] != -100).sum(1).double()
    torch.testing.assert_close(layer.weights, sizes / sizes.sum())
    g = layer.moments.C
    torch.testing.assert_close(layer.inner.sum(), g, rtol=1e-5, atol=0)  # Σ⟨g_s, G⟩ = ‖G‖²
    assert count_labels(x) is None


def test_what_does_not_match_is_reported_and_training_goes_on():
    model, batch = model_of(), draw(0)
    for weights, reason in [
        (torch.ones(7), r"weights= gives 7 numbers, but it has 16 examples"),
        (lambda x: torch.ones(7), r"weights= gives 7 numbers, but it has 16 examples"),
        (lambda x: x, r"weights= gave torch.float32 of shape .*, not one number for each example"),
        (lambda x: 1 / 0, r"weights= could not be read: ZeroDivisionError"),
    ]:
        probe = Probe(model, estimators=["gaussian"], rates=[0.2], weights=weights)
        with probe, pytest.warns(UserWarning, match=reason):
            loss(model, batch).backward()
            probe.step()
        coverage = probe.coverage()
        assert not coverage["measured"].any() and coverage["reason"].str.contains("weights=").all()
    with Probe(model, weights=torch.ones(S)) as probe, pytest.warns(match="several backward pass"):
        for _ in range(2):
            loss(model, batch).backward()
        assert probe.read() == {}


def test_what_is_refused():
    model = model_of()
    for weights in (torch.tensor([1.0, -1.0, 2.0]), torch.zeros(4), torch.ones(1)):
        with pytest.raises(ValueError, match="numbers >= 0 of two examples or more"):
            Probe(model, weights=weights)
    with pytest.raises(ValueError, match="not one number for each example"):
        Probe(model, weights=torch.ones(3, 2))
    with pytest.raises(ValueError, match="by_example=False measures rows alone"):
        Probe(model, by_example=False, weights=torch.ones(4))
    with pytest.raises(ValueError, match=r"weights of examples need the inner products"):
        noise.by_example(torch.ones(3), torch.ones(()), weights=torch.ones(3) / 3)
