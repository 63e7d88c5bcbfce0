"""Sketched layers under torch.compile: no graph break, no compilation per step or batch size, one
copy for siblings.

Run by test_linear_compiled.py in a process without the shape checks, which the compiler would
trace.
"""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

from sketchvar.estimators import CATALOG, CountSketch, SketchedLinear, UniformRows, build
from sketchvar.estimators.catalog import ORACLES

USABLE = [name for name in CATALOG if name not in ORACLES | {"exact"}]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()


def gradients(run, model, x, seed=0):
    model.zero_grad()
    torch.manual_seed(seed)
    run(x).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("name", USABLE)
def test_one_graph_serves_every_step_and_batch_size(name):
    estimator = build(name, 0.3)
    model = nn.Sequential(
        SketchedLinear(6, 8, estimator), nn.ReLU(inplace=True), SketchedLinear(8, 5, estimator)
    )
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for step, n in enumerate((20, 20, 31, 64, 20)):
        x = torch.randn(n, 6)
        for a, b in zip(
            gradients(model, model, x, step), gradients(compiled, model, x, step), strict=True
        ):
            assert torch.allclose(a, b, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


@pytest.mark.parametrize("shape", [(20, 6), (4, 5, 6)])
def test_writing_in_place_to_the_output(shape):
    model = nn.Sequential(SketchedLinear(6, 8, CountSketch(0.3)), nn.ReLU(inplace=True))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(shape)
    for a, b in zip(gradients(model, model, x), gradients(compiled, model, x), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_each_step_draws_anew():
    model = SketchedLinear(6, 5, CountSketch(0.3))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(20, 6)
    (first, _), (second, _) = gradients(compiled, model, x, 1), gradients(compiled, model, x, 2)
    assert not torch.equal(first, second)
    assert torch.equal(first, gradients(compiled, model, x, 1)[0])
    assert counters["stats"]["unique_graphs"] == 1


class Siblings(nn.Module):
    def __init__(self):
        super().__init__()
        self.pre = nn.Linear(8, 16)
        self.q, self.k, self.v = (SketchedLinear(16, 16, CountSketch(0.25)) for _ in range(3))

    def forward(self, x):
        h = self.pre(x)
        return torch.cat([self.q(h), self.k(h), self.v(h)], -1)


def test_siblings_share_one_copy():
    model = Siblings()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(64, 8)
    seen = {}

    def pack(t):
        seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        compiled(x)
    weights = sum(m.weight.nbytes for m in (model.q, model.k, model.v))
    assert sum(seen.values()) == x.nbytes + weights + CountSketch(0.25).kept_bytes(
        64, 16, torch.float32
    )


@pytest.mark.parametrize("autocast", [False, True])
def test_with_the_default_backend_under_checkpointing_and_autocast(autocast):
    model = nn.Sequential(
        SketchedLinear(6, 8, UniformRows(0.5)), nn.Tanh(), SketchedLinear(8, 5, UniformRows(0.5))
    )

    def run(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return checkpoint(model, x, use_reentrant=False).float()

    x = torch.randn(16, 6)
    found = gradients(torch.compile(run, fullgraph=True), model, x)
    for p, g in zip(model.parameters(), found, strict=True):
        assert p.dtype == g.dtype and g.isfinite().all()
    model.eval()  # the plain path: all is exact
    exact = gradients(model, model, x)
    tolerance = 0.1 if autocast else 1e-4
    for i in (1, 3):
        assert torch.allclose(found[i], exact[i], rtol=tolerance, atol=tolerance)
