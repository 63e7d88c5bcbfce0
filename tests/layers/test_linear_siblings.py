"""Layers that read the same input share one compressed copy of it."""

import gc

import pytest
import torch
from support.saved import saved_bytes
from torch import nn
from torch.utils.checkpoint import checkpoint

from sketchvar.estimators import (
    CountSketch,
    SketchedLinear,
    UniformRows,
    estimate,
)
from sketchvar.estimators.layers.opaque import next_seed
from sketchvar.estimators.layers.sharing import COPIES


def test_siblings_share_one_compressed_copy():
    estimator = CountSketch(0.25)
    q, k, v = (SketchedLinear(16, 16, estimator) for _ in range(3))
    pre = nn.Linear(8, 16)
    kept = estimator.kept_bytes(64, 16, torch.float32)

    def run(x):
        h = pre(x)
        return q(h) + k(h) + v(h)

    source = torch.randn(64, 8)
    found, _ = saved_bytes(lambda: run(source))
    assert found == source.nbytes + kept + sum(m.weight.nbytes for m in (q, k, v))

    def mutated(x):
        h = pre(x)
        out = q(h)
        h.add_(1)
        return out + k(h)

    torch.manual_seed(0)
    for m in (q, k):
        m.zero_grad()
    h = pre(source).detach()
    mutated(source).sum().backward()
    torch.manual_seed(0)
    seeds = next_seed(), next_seed()
    ones = torch.ones(64, 16)
    assert torch.allclose(q.weight.grad.T, estimate(estimator, h, ones, seeds[0]), atol=1e-4)
    assert torch.allclose(k.weight.grad.T, estimate(estimator, h + 1, ones, seeds[1]), atol=1e-4)


def test_siblings_do_not_share_over_other_estimators_or_after_data_was_swapped():
    a, b = SketchedLinear(6, 5, CountSketch(0.3)), SketchedLinear(6, 5, UniformRows(0.3))
    c = SketchedLinear(6, 5, CountSketch(0.3))
    x, other = torch.randn(20, 6), torch.randn(20, 6)
    torch.manual_seed(0)
    first = a(x)
    second = b(x)
    x.data = other
    third = c(x)
    (first.sum() + second.sum() + third.sum()).backward()
    torch.manual_seed(0)
    _, _, seed = next_seed(), next_seed(), next_seed()
    assert torch.equal(c.weight.grad.T, estimate(c.estimator, x, torch.ones(20, 5), seed))


@pytest.mark.parametrize("reentrant", [True, False])
def test_siblings_share_under_checkpointing(reentrant, monkeypatch):
    calls = []
    compress = CountSketch.compress
    monkeypatch.setattr(
        CountSketch, "compress", lambda self, x, seed: calls.append(seed) or compress(self, x, seed)
    )
    q, k, v = (SketchedLinear(16, 16, CountSketch(0.25)) for _ in range(3))

    def block(h):
        h = h.tanh()
        return q(h) * k(h) * v(h)

    h = torch.randn(64, 16, requires_grad=True)
    out = checkpoint(block, h, use_reentrant=reentrant)
    in_forward = len(calls)
    assert in_forward <= 1
    out.sum().backward()
    assert len(calls) == in_forward + 1


def test_what_is_shared_is_not_held_when_its_graph_and_input_are_gone():
    gc.collect()
    before = len(COPIES.of)
    a = SketchedLinear(6, 5, CountSketch(0.3))
    x = torch.randn(20, 6)
    a(x).sum().backward()
    assert len(COPIES.of) == before + 1
    del x
    assert len(COPIES.of) == before
