"""What standard errors are made of, and uses of one weight: against explicit gradients and draws of
layers.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis import noise
from sketchvar.analysis.probe import Probe
from sketchvar.estimators import Gaussian, sketch_linears


class Read(nn.Module):
    """An MLP over tokens (examples × tokens × features), or a convolution over images."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.first = nn.Conv2d(2, 3, 2) if kind == "images" else nn.Linear(4, 6)
        self.second = nn.Conv2d(3, 2, 2) if kind == "images" else nn.Linear(6, 3)

    def forward(self, x):
        return self.second(self.first(x).tanh())


def batch_of(kind):
    g = torch.Generator().manual_seed(1)
    x = torch.randn((5, 2, 5, 5) if kind == "images" else (5, 7, 4), generator=g)
    return x * torch.arange(1, 6).view(5, *[1] * (x.ndim - 1))


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("kind", ["tokens", "long", "second", "images", "numbered"])
def test_sums_and_inner_products_by_example(kind, passes):
    x, model = batch_of(kind), Read(kind)
    x = x.repeat(1, 40, 1) if kind == "long" else x  # fused
    examples = 1 if kind == "second" else 0
    if kind == "numbered":
        examples = lambda x: torch.arange(len(x))[:, None].expand(-1, 7).flip(0)  # noqa: E731
    with Probe(model, examples=examples, exact_errors=True) as probe:
        for part in x.split([5] if passes == 1 else [2, 3]):
            out = model(part.transpose(0, 1) if kind == "second" else part)
            out.square().sum().backward()
    for name, layer in probe.read().items():
        alone, whole = [], model.get_submodule(name).weight.grad.double()
        for one in x.split(1):
            copy = Read(kind)
            with Probe(copy, pairs=[name]) as single:
                copy(one).square().sum().backward()
            m = single.read()[name].moments
            g = copy.get_submodule(name).weight.grad.double()
            numbers = (m.x_sq.sum(), m.y_sq.sum(), m.D, g.square().sum(), (g * whole).sum())
            alone.append(torch.stack(numbers))
        alone = torch.stack(alone, 1)
        inner = layer.inner
        assert (inner is None) == (passes == 2)  # G is not known before the last
        inner = alone[-1] if inner is None else inner
        found = torch.cat([layer.sums, layer.example_sq[None], inner[None]])
        if kind == "numbered":
            found = found.flip(1) if passes == 1 else found
            order = [1, 0, 4, 3, 2] if passes == 2 else [0, 1, 2, 3, 4]
            found[:4] = found[:4, order]
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4 * float(alone.max()))


def test_norms_alone_stand_for_inner_products():
    found = []
    for exact in (False, True):
        with Probe(Read("tokens"), exact_errors=exact) as probe:
            probe.model(batch_of("tokens")).square().sum().backward()
        layers = list(probe.read().values())
        rows = noise.compare(layers, ["gaussian", "norm-rows", "feature-gaussian"], 0.2)
        found.append((layers[0].inner is None, rows))
    assert [one for one, _ in found] == [True, False]
    norms, exact = (rows for _, rows in found)
    assert norms["signal_stderr"].isna().all() and exact["signal_stderr"].notna().all()
    columns = [name for name in norms if not name.endswith("_stderr")]
    assert norms[columns].equals(exact[columns])
    assert norms["alpha_stderr"].isna().all() and (exact["alpha_stderr"] > 0).all()
    assert norms["variance_stderr"].isna().tolist() == [False, True, True] * 2
    assert exact["variance_stderr"].isna().tolist() == [False, True, False] * 2
    rough = norms["variance_stderr"] / exact["variance_stderr"]
    assert rough.dropna().between(0.5, 1.5).all()


class Shared(nn.Module):
    """One layer read twice, by inputs and with gradients of unlike scale."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 5)

    def forward(self, x):
        return self.layer(3 * x[0]), 3 * self.layer(x[1])


@pytest.mark.parametrize("accumulated", [False, True])
def test_variances_of_uses_add_as_layers_draw(accumulated):
    g = torch.Generator().manual_seed(2)
    x = torch.randn(2, 4, 8, 6, generator=g)
    targets = torch.randn(2, 4, 8, 5, generator=g)

    def loss(model, batch):
        a, b = model(batch)
        return F.mse_loss(a, targets[0]) + F.mse_loss(b, targets[1])

    model, estimator = Shared(), Gaussian(0.25)
    with Probe(model, estimators=[estimator]) as probe:
        if accumulated:
            for each in (0, 1):
                F.mse_loss(model(x)[each], targets[each]).backward()
        else:
            loss(model, x).backward()
        layer = probe.read()["layer"]
        probe.step()
    row = probe.rows().iloc[0]
    assert row["uses"] == 2 == len(layer.parts) and row["kept_rows"] == 16
    sketch_linears(model, estimator)
    drawn = noise.redraw(model, loss, [x] * 500, 500)["layer.weight"]
    apart = (row["variance"] - drawn.value) / drawn.stderr
    assert abs(float(apart)) < 4
    joint = estimator.variance(layer.moments)  # of one sketch of all rows
    assert abs(float((joint - drawn.value) / drawn.stderr)) > 8
    assert torch.isnan(torch.tensor(row["variance_stderr"]))
    assert row["minibatch_example_stderr"] > 0


def test_examples_that_a_batch_norm_ties_have_no_inner_products():
    """Theirs would be of other gradients than their norms are."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    with Probe(model, exact_errors=True) as probe, pytest.warns(UserWarning, match="training mode"):
        model(torch.randn(8, 4)).square().sum().backward()
        layers = probe.read()
    assert layers["0"].inner is None and layers["3"].inner is not None
    assert layers["0"].sums is not None
