"""The probe against explicit per-example gradients, in the settings that real training has."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sketchvar.analysis import noise
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.probe.fused import pays
from sketchvar.analysis.tasks.stdlib_lm import StdlibLM, Transformer
from sketchvar.estimators import Moments, parse

B, T = 5, 12


@pytest.fixture
def tokens():
    g = torch.Generator().manual_seed(1)
    return torch.randint(256, (B, T), generator=g), torch.randint(256, (B, T), generator=g)


def transformer(width=16, length=T):
    torch.manual_seed(0)
    model = Transformer(width=width, depth=2, heads=2, length=length)
    for p in model.parameters():
        p.data.mul_(3)  # away from the symmetric start
    return model


def token_loss(model, inputs, targets, reduction):
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction=reduction)


def per_example(model, inputs, targets, scale):
    """Explicit gradient of each example's share of the loss, by torch.func."""
    weights = dict(model.named_parameters())

    def share(weights, x, y):
        logits = functional_call(model, weights, (x[None],))
        return F.cross_entropy(logits[0], y, reduction="sum") * scale

    return vmap(grad(share), in_dims=(None, 0, 0))(weights, inputs, targets)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("length", "width"), [(T, 16), (2, 16)])
@pytest.mark.usefixtures("both_ways")
def test_example_level_equals_explicit_per_example_gradients(reduction, length, width):
    g = torch.Generator().manual_seed(1)
    inputs, targets = torch.randint(256, (2, B, length), generator=g)
    model = transformer(width, length)
    explicit = per_example(model, inputs, targets, 1 / (B * length) if reduction == "mean" else 1.0)
    with Probe(model) as probe:
        token_loss(model, inputs, targets, reduction).backward()
    layers = probe.read()
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    assert list(layers) == linear
    for name, layer in layers.items():
        g_s = explicit[f"{name}.weight"].double()
        expected = B / (B - 1) * (g_s - g_s.mean(0)).square().sum()
        found = noise.by_example(layer.example_sq, layer.moments.C)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5), name
        torch.testing.assert_close(
            layer.example_sq, g_s.square().sum((1, 2)), rtol=1e-5, atol=1e-12
        )
        torch.testing.assert_close(
            layer.moments.C, g_s.sum(0).square().sum(), rtol=1e-5, atol=1e-12
        )
        assert (layer.examples, layer.moments.n) == (B, B * length)


def test_each_way_to_example_norms_is_taken_where_it_is_the_faster():
    assert pays(8, 256, 256, 1024)
    assert not pays(64, 32, 192, 768) and not pays(1000, 2, 8, 8) and not pays(0, 256, 256, 256)


def test_chunks_and_ways_agree():
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(7, 6, d, generator=g, dtype=torch.float64) for d in (3, 5))
    expected = torch.einsum("stp,stq->spq", x, y).square().sum((1, 2))
    for budget in (1, 50, 10**6):
        torch.testing.assert_close(noise.example_sq(x, y, budget), expected)
        torch.testing.assert_close(
            noise.example_sq(x[:, :1], y[:, :1], budget),
            (x[:, 0, :, None] * y[:, 0, None]).square().sum((1, 2)),
        )


@pytest.mark.parametrize("by_example", [False, True])
def test_row_moments_are_those_of_the_pair(tokens, by_example):
    model = transformer()
    with Probe(model, by_example, pairs=["blocks.1.up"]) as probe:
        token_loss(model, *tokens, "mean").backward()
    layer = probe.read()["blocks.1.up"]
    x, y = layer.moments.pair
    torch.testing.assert_close((x.T @ y).T, model.blocks[1].up.weight.grad)
    torch.testing.assert_close(layer.moments.x_sq, x.double().square().sum(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(layer.moments.y_sq, y.double().square().sum(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        layer.moments.C, model.blocks[1].up.weight.grad.double().square().sum(), rtol=1e-6, atol=0
    )
    assert (layer.example_sq is None) == (not by_example)


@pytest.mark.parametrize("scale", [None, 1024.0])
def test_estimators_that_need_the_pair_have_it_and_it_is_let_go(tokens, scale):
    names, model = ["rounding:2", "centered(countsketch)", "gaussian"], transformer()
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    with Probe(model, estimators=names, rates=[0.5], scaler=scaler, pairs=["head"]) as probe:
        loss = token_loss(model, *tokens, "mean")
        (loss if scaler is None else scaler.scale(loss)).backward()
        layers = probe.read()
        probe.step()
    tallies = probe.observer.step.tallies.values()
    assert [t.watch.name for t in tallies if any(use.pair for use in t.uses)] == ["head"]
    variances = probe.rows().pivot_table(index="layer", columns="estimator", values="variance")
    for name, layer in layers.items():
        x, y = layer.moments.pair
        torch.testing.assert_close(layer.moments.G, x.T @ y)
        torch.testing.assert_close(Moments.of(x, y).C, layer.moments.C, rtol=1e-5, atol=0)
        for estimator in names:
            expected = parse(estimator, 0.5).variance(Moments.of(x, y))
            assert variances.loc[name, estimator] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.usefixtures("both_ways")
def test_a_pair_is_cut_from_the_graph_whichever_way_it_was_measured():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with Probe(model, pairs=["1"]) as probe:
        model(torch.randn(3, 6, 4)).square().sum().backward()
    assert not any(t.requires_grad for t in probe.read()["1"].moments.pair)


@pytest.mark.parametrize("by_example", [False, True])
def test_loss_and_gradients_are_the_models_own_and_nothing_stays_attached(tokens, by_example):
    plain, probed = transformer(), transformer()
    token_loss(plain, *tokens, "mean").backward()
    before = {name: set(vars(m)) for name, m in probed.named_modules()}
    with Probe(probed, by_example):
        loss = token_loss(probed, *tokens, "mean")
        loss.backward()
    assert loss.item() == token_loss(plain, *tokens, "mean").item()
    for (name, a), b in zip(plain.named_parameters(), probed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7, msg=name)
    assert {name: set(vars(m)) for name, m in probed.named_modules()} == before
    assert not any(m._forward_hooks for m in probed.modules())
    assert not any(p._backward_hooks for p in probed.parameters())
    copy.deepcopy(probed)


def test_detaches_when_the_block_raises(tokens):
    model = transformer()
    with pytest.raises(RuntimeError, match="stop"), Probe(model):
        raise RuntimeError("stop")
    assert not any(m._forward_hooks or "forward" in vars(m) for m in model.modules())


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.usefixtures("both_ways")
def test_activation_checkpointing_gives_the_same_numbers(tokens, reentrant):
    class Checkpointed(Transformer):
        def forward(self, inputs):
            h = self.bytes(inputs) + self.places.weight[: inputs.shape[1]]
            for block in self.blocks:
                h = checkpoint(block, h, use_reentrant=reentrant)
            return self.head(self.norm(h))

    plain = transformer()
    model = transformer()
    model.__class__ = Checkpointed
    found = []
    for m in (plain, model):
        with Probe(m) as probe:
            token_loss(m, *tokens, "mean").backward()
        found.append(probe.read())
    assert list(found[0]) == list(found[1])
    for name, layer in found[0].items():
        torch.testing.assert_close(layer.example_sq, found[1][name].example_sq)
        torch.testing.assert_close(layer.moments.C, found[1][name].moments.C)
        torch.testing.assert_close(layer.moments.y_sq, found[1][name].moments.y_sq)


def test_gradient_that_was_accumulated_before_does_not_enter(tokens):
    model = transformer()
    token_loss(model, *tokens, "mean").backward()
    once = model.head.weight.grad.double().square().sum()
    with Probe(model) as probe:
        token_loss(model, *tokens, "mean").backward()
    torch.testing.assert_close(probe.read()["head"].moments.C, once, rtol=1e-5, atol=0)


def test_activations_do_not_outlive_the_backward_pass():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    seen = []
    model[1].register_forward_pre_hook(lambda m, inputs: seen.append(weakref.ref(inputs[0])))
    with Probe(model) as probe:
        model(torch.randn(6, 4)).square().sum().backward()
    gc.collect()
    assert seen[0]() is None
    assert set(probe.read()) == {"0", "1"}


@pytest.mark.usefixtures("both_ways")
def test_in_place_activation_after_a_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))
    for shape in ((6, 4), (6, 50, 4)):
        x = torch.randn(shape)
        model.zero_grad()
        with Probe(model) as probe:
            model(x).square().sum().backward()
        layers = probe.read()
        assert set(layers) == {"0", "2"}
        for name, layer in layers.items():
            expected = model.get_submodule(name).weight.grad.double().square().sum()
            torch.testing.assert_close(layer.moments.C, expected, rtol=1e-5, atol=0)


@pytest.mark.usefixtures("both_ways")
def test_autocast(tokens):
    model = transformer()
    with Probe(model) as probe, torch.autocast("cpu", dtype=torch.bfloat16):
        token_loss(model, *tokens, "sum").backward()
    layers = probe.read()
    for name, layer in layers.items():
        C = model.get_submodule(name).weight.grad.double().square().sum()
        torch.testing.assert_close(layer.moments.C, C, rtol=1e-5, atol=0)
    for s in range(B):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            token_loss(model, tokens[0][s : s + 1], tokens[1][s : s + 1], "sum").backward()
        for name, layer in layers.items():
            alone = model.get_submodule(name).weight.grad.double().square().sum()
            torch.testing.assert_close(layer.example_sq[s], alone, rtol=0.03, atol=0)


def test_coverage_names_every_matrix_and_why_it_is_not_measured(tokens):
    model = transformer()
    model.blocks[0].query.weight.requires_grad_(False)
    model.spare = nn.Linear(3, 3)
    twice = nn.Linear(16, 16)
    model.blocks[0].up, model.blocks[0].down = nn.Sequential(twice, twice), nn.Identity()
    with Probe(model) as probe:
        token_loss(model, *tokens, "mean").backward()
    table = probe.coverage().set_index("parameter")
    assert set(table.index) == {name for name, _ in model.named_parameters()}
    reasons = table["reason"]
    assert "frozen" in reasons["blocks.0.query.weight"]
    assert "no gradient reached it" in reasons["spare.weight"]
    assert "Embedding" in table["note"]["bytes.weight"]
    matrices = [name for name, p in model.named_parameters() if p.ndim > 1]
    alone = table["note"].str.startswith("in noise() alone")
    assert table["measured"][matrices].sum() - alone.sum() == len(probe.read()) == 11
    assert set(table.index[~table["measured"]]) == {
        "blocks.0.query.weight", "spare.weight", "spare.bias",
    }  # fmt: skip
    assert table["share"].sum() == pytest.approx(1)


def test_tied_weight_is_measured_by_its_own_product(tokens):
    model = transformer()
    model.head.weight = model.bytes.weight
    untied = transformer()
    untied.head.weight.data.copy_(model.bytes.weight.data)
    untied.bytes.weight.data.copy_(model.bytes.weight.data)
    found = []
    for m in (model, untied):
        with Probe(m) as probe:
            token_loss(m, *tokens, "mean").backward()
        found.append(probe.read()["head"].moments.C)
    torch.testing.assert_close(*found, rtol=1e-5, atol=0)


def test_no_gradient_no_measurement(tokens):
    model = transformer()
    with Probe(model) as probe, torch.no_grad():
        model(tokens[0])
    assert probe.read() == {}
    assert not probe.coverage()["measured"].any()


def test_bad_input():
    with pytest.raises(
        ValueError, match=r"Embedding has no linear layer whose weight requires a gradient"
    ):
        Probe(nn.Embedding(3, 3))
    with pytest.raises(ValueError, match=r"no trained layer called 'x'; known are 0"):
        Probe(nn.Sequential(nn.Linear(2, 2)), pairs=["x"])


def test_default_task_is_fully_covered():
    task = StdlibLM(width=16, depth=1, heads=2, length=8, batch_size=3)
    torch.manual_seed(0)
    model = task.model()
    with Probe(model) as probe:
        task.loss(model, task.batch(0, seed=0)).backward()
    table = probe.coverage()
    assert table["measured"].all()
    noted = table[table["note"] != ""]
    assert set(noted["parameter"]) == {"bytes.weight", "places.weight"}
