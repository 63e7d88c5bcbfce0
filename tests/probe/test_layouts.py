"""Layers whose rows are laid out otherwise than the examples: measured where that is plain, else
reported; coupled and equal examples are told of.
"""

import numpy as np
import pytest
import torch
from support.truth import measured, variances
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis import noise
from sketchvar.analysis.probe import Probe, not_padding
from sketchvar.analysis.probe.watch import Use

TABLE = {"estimators": ["uniform-rows"], "rates": [0.5]}
B, T = 4, 6
MASK = torch.arange(T) < torch.tensor([[6], [4], [2], [5]])


class Experts(nn.Module):
    """A router over flattened rows, an expert that gathers some of them, a pooled head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.router, self.expert, self.head = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x, attention_mask):
        h = torch.tanh(self.first(x)) * attention_mask[..., None]
        flat = h.flatten(0, 1)
        flat = flat + torch.tanh(self.router(flat))
        rows = (flat.sum(1) > 0).nonzero()[:, 0]
        flat = flat.index_add(0, rows, self.expert(flat[rows]))
        return self.head(flat.view(h.shape).mul(attention_mask[..., None]).sum(1))


@pytest.mark.parametrize("examples", ["mask", "numbers", "numpy"])
def test_flattened_pooled_and_gathered_rows(examples):
    model, x = Experts(), torch.randn(B, T, 6)
    numbers = torch.arange(B)[:, None].expand(B, T).masked_fill(~MASK, -1)
    given = {"mask": MASK, "numbers": numbers, "numpy": numbers.numpy()}[examples]
    with Probe(model, examples=given, **TABLE) as probe, pytest.warns(UserWarning, match="expert"):
        model(x, MASK).square().mean().backward()
        probe.step()
    true = variances(model, lambda s: model(x[s : s + 1], MASK[s : s + 1]).square().mean() / B, B)
    found = measured(probe.rows())
    assert set(found) == {"first", "router", "head"}
    for name, value in found.items():
        assert value == pytest.approx(true[f"{name}.weight"], rel=1e-4), name
    reasons = probe.coverage().set_index("parameter")["reason"]
    assert "which row is of which example is not known" in reasons["expert.weight"]


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 6)

    def forward(self, input_ids, attention_mask=None, scale=1.0):
        mask = attention_mask if attention_mask is not None else input_ids["attention_mask"]
        x = input_ids if isinstance(input_ids, torch.Tensor) else input_ids["x"]
        return self.layer(x)[mask.bool()] * scale


class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Words()

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x, mask: model(x, attention_mask=mask),
        lambda model, x, mask: model(x, mask),
        lambda model, x, mask: model(x, mask, 1.0),
        lambda model, x, mask: model(attention_mask=mask, input_ids=x),
        lambda model, x, mask: model({"x": x, "attention_mask": mask}),
    ],
)
@pytest.mark.parametrize("kind", [Words, Wrapper])
def test_a_mask_is_found_however_it_is_given(call, kind):
    model = kind()
    with Probe(model, examples=not_padding) as probe:
        call(model, torch.randn(B, T, 6), MASK.long()).square().sum().backward()
    assert {layer.rows for layer in probe.read().values()} == {int(MASK.sum())}


def convnet():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2)
    )


@pytest.mark.parametrize(("kind", "layer"), [(convnet, "0"), (convnet, "3"), (perceptron, "1")])
def test_before_a_batch_norm_the_variance_is_near_that_of_redrawn_minibatches(
    kind, layer, monkeypatch
):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(512, 1, 8, 8, generator=g) + torch.randn(512, 1, 1, 1, generator=g)
    y = (x.mean((1, 2, 3)) > 0).long()
    model = kind()
    batches = [torch.randint(512, (16,), generator=g) for _ in range(150)]

    def loss(model, b):
        return F.cross_entropy(model(x[b]), y[b])

    def found():
        with Probe(model) as probe, pytest.warns(UserWarning, match="BatchNorm|training mode"):
            values = []
            for b in batches[:40]:
                loss(model, b).backward()
                one = probe.read()[layer]
                values.append(noise.by_example(one.example_sq, one.moments.C))
                probe.step()
                model.zero_grad()
        assert probe.coverage()["note"].str.contains("noise.redraw measures the truth").all()
        return torch.stack(values).mean().item()

    true = noise.redraw(model, loss, batches, 150)[f"{layer}.weight"].value.item()
    assert 0.7 < found() / true < 1.5
    monkeypatch.setattr(Use, "normalized", property(lambda self: None, lambda self, _: None))
    if layer == "3":  # the control: examples taken to be independent
        assert found() / true > 4


class Normalizes(nn.Module):
    """By the function, of no module, as models do that fold their statistics."""

    def __init__(self, training):
        super().__init__()
        self.training_mode, self.inner, self.head = training, nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = F.batch_norm(self.inner(x), torch.zeros(4), torch.ones(4), training=self.training_mode)
        return self.head(h)


@pytest.mark.parametrize("training", [False, True])
def test_a_function_that_normalises_over_the_batch_is_noticed(training, recwarn):
    plain = torch.batch_norm
    model = Normalizes(training)
    with Probe(model, **TABLE) as probe:
        model(torch.randn(B, 6)).square().mean().backward()
        probe.step()
    noted = probe.coverage()["note"].str.contains("batch_norm in training mode")
    assert noted.all() if training else not noted.any()
    assert any("batch_norm" in str(w.message) for w in recwarn) == training
    assert torch.batch_norm is plain


@pytest.mark.parametrize("kind", [nn.SyncBatchNorm, nn.LazyBatchNorm1d])
def test_every_batch_norm_is_noticed(kind):
    norm = kind() if kind is nn.LazyBatchNorm1d else kind(4)
    model = nn.Sequential(nn.Linear(6, 4), norm, nn.Linear(4, 2))
    model(torch.randn(B, 6))
    with Probe(model, **TABLE) as probe, pytest.warns(UserWarning, match="1 in training mode"):
        model(torch.randn(B, 6)).square().mean().backward()
        probe.step()


def test_equal_examples_have_no_variance():
    for seed in range(4):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 10))
        x, y = torch.randn(1, 5, 32).repeat(16, 1, 1), torch.randint(10, (1, 5)).repeat(16, 1)
        with Probe(model, **TABLE) as probe, pytest.warns(UserWarning, match="examples are equal"):
            F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
            probe.step()
        rows = probe.rows()
        assert (rows["minibatch_example"] == 0).all() and np.isinf(rows["ratio"]).all()
        assert noise.noise_scale(rows)["noise_scale"].min() >= 0


def test_a_difference_of_many_digits_is_not_taken_for_none():
    """The control: one part in 10⁴ is told from 0."""
    squares = torch.full((16,), 1.0, dtype=torch.float64)
    C = torch.tensor(256 * (1 - 1e-4), dtype=torch.float64)
    assert noise.by_example(squares, C).item() == pytest.approx(256e-4 / 15)
    assert noise.by_example(squares, torch.tensor(256 * (1 - 1e-6)).double()) == 0
    assert noise.by_example(squares, torch.tensor(256 * (1 + 1e-6)).double()) == 0
