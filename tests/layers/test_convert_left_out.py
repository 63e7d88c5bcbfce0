"""What sketch_linears cannot sketch, and says so; what of it still runs."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from sketchvar.estimators import (
    CountSketch,
    sketch_linears,
)


class Inherited(nn.Linear):
    """A subclass that changes nothing of forward."""


class OwnForward(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def test_what_cannot_be_sketched_is_reported():
    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(8, 2),
            "own": OwnForward(4, 4),
            "grouped": nn.Conv2d(4, 4, 1, groups=2),
            "lazy": nn.LazyLinear(4),
            "parametrized": parametrize.register_parametrization(
                nn.Linear(4, 4), "weight", nn.Identity()
            ),
            "embedding": nn.Embedding(3, 4),
            "inherited": Inherited(4, 4),
            "recurrent": nn.LSTM(4, 4),
        }
    )
    report = sketch_linears(model, CountSketch(0.5))
    assert list(report.converted) == ["inherited"]
    reasons = {
        "attention": "multiplies by its in_proj_weight itself",
        "attention.out_proj": "never calls it",
        "own": "OwnForward has its own forward",
        "grouped": "2 products, one per group",
        "lazy": "before the first batch",
        "parametrized": "is parametrized",
        "embedding": "it is an Embedding",
        "recurrent": "LSTM",
    }
    for name, reason in reasons.items():
        assert reason in report.skipped[name], (name, report.skipped[name])


class Fused(nn.Module):
    """A loss that takes the head's weight, as fused cross-entropies do, and a tied decoder."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.tied = nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(4, 4)

    def forward(self, x):
        h = self.body(x.to(self.body.weight.dtype))
        h = nn.functional.linear(self.tied(h), self.tied.weight.t())
        return self.loss(h)

    def loss(this, h):
        return nn.functional.linear(h, this.head.weight).logsumexp(-1).sum()


def test_a_layer_that_nobody_would_call_is_reported():
    model = nn.Sequential(Fused(), nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.cfloat))
    model[1].forward = lambda x: x  # as accelerate's hooks do
    report = sketch_linears(model, CountSketch(0.5))
    assert list(report.converted) == ["0.body", "0.tied"]
    assert report.skipped == {
        "0.head": "Fused reads its weight itself and never calls it",
        "1": "its forward was replaced on the instance, as accelerate's hooks do (device_map,"
        " offload): nobody would call the sketched one; convert first",
        "2": "its weight is complex",
    }


def test_adapters_of_multihead_attention_are_reported():
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model = nn.Sequential(nn.Linear(16, 16), nn.MultiheadAttention(16, 2))
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["1"]))
    report = sketch_linears(model, CountSketch(0.5))
    assert list(report.converted) == ["base_model.model.0"]
    assert sum("adapter of nn.MultiheadAttention" in why for why in report.skipped.values()) == 2
