"""An audit shows a planted bias exactly, a random layer's variance, and no bias where there is
none.
"""

import json

import pytest
import torch
from scipy.stats import binom
from torch import nn
from torch.nn.functional import linear

from sketchvar import CountSketch, Moments, SketchedLinear, audit, parse
from sketchvar.analysis.__main__ import main as command
from sketchvar.analysis.audit import judge, load
from sketchvar.analysis.noise import by_example, by_row, example_sq

P, Q, N = 6, 5, 24


class Rounds(torch.autograd.Function):
    """x to whole numbers, up with the probability of what is beyond them or to the nearest; the
    gradient passes.
    """

    @staticmethod
    def forward(ctx, x, at_random):
        return (x + torch.rand_like(x)).floor() if at_random else x.round()

    @staticmethod
    def backward(ctx, y):
        return y, None


class Rounded(nn.Linear):
    at_random = False

    def forward(self, x):
        return linear(Rounds.apply(x, self.at_random), self.weight, self.bias)


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    return (torch.randn(N, d, generator=g, dtype=torch.float64) for d in (P, Q))


def layer_of(kind, at_random=False, **options):
    torch.manual_seed(1)
    layer = kind(P, Q, dtype=torch.float64, **options)
    layer.at_random = at_random
    return layer


def test_a_plain_layer_is_exact(pair):
    x, y = pair
    for layer in (layer_of(nn.Linear), layer_of(nn.Linear).float(), layer_of(nn.Linear).bfloat16()):
        dtype = layer.weight.dtype
        found = audit(layer, x.to(dtype), y.to(dtype), draws=4)
        assert list(found.parts) == ["output", "input gradient", "weight gradient", "bias gradient"]
        for part in found.parts.values():
            assert part.p_value == 1 and part.variance == 0
            assert abs(part.bias_sq) <= torch.finfo(dtype).eps ** 2 * part.norm_sq
        assert layer.weight.grad is None and not found.left_out


def test_rounding_to_the_nearest_shows_its_exact_bias(pair):
    x, y = pair
    layer = layer_of(Rounded)
    parts = audit(layer, x, y, draws=8).parts
    off = x.round() - x
    by_hand = {
        "output": (off @ layer.weight.T).square().sum(),
        "weight gradient": (off.T @ y).square().sum(),
    }
    for name, bias_sq in by_hand.items():
        assert parts[name].bias_sq == pytest.approx(bias_sq.item(), rel=1e-10)
        assert parts[name].bias_sq != pytest.approx(1.05 * bias_sq.item(), rel=1e-3)  # must fail
        assert parts[name].variance == 0 and parts[name].p_value < 1e-6
        assert parts[name].growth == pytest.approx(8)
    assert parts["input gradient"].p_value == parts["bias gradient"].p_value == 1


def test_rounding_at_random_has_its_variance_and_no_bias(pair):
    """Bounds are 4.5 standard errors: a right audit is beyond them for 7 of 10⁶ seeds."""
    x, y = pair
    layer = layer_of(Rounded, at_random=True)
    parts = audit(layer, x, y, draws=600).parts
    f = x - x.floor()
    each = f * (1 - f)
    by_hand = {
        "output": (each @ layer.weight.square().T).sum(),
        "weight gradient": (y.square().sum(1)[:, None] * each).sum(),
    }
    for name, variance in by_hand.items():
        part = parts[name]
        assert abs(part.variance - variance) < 4.5 * part.variance_stderr
        assert abs(part.variance - 1.2 * variance) > 4.5 * part.variance_stderr  # must fail
        assert abs(part.bias_sq) < 4.5 * part.bias_stderr and part.p_value > 1e-5
        assert part.growth == pytest.approx(1, abs=1.5)


def test_a_small_bias_beside_a_large_variance_is_found(pair):
    """Half of the rounding is to the nearest: the bias is half of it, and the variance too."""
    x, y = pair

    class Mixed(Rounded):
        def forward(self, x):
            both = Rounds.apply(x, True), Rounds.apply(x, False)
            return linear(sum(both) / 2, self.weight, self.bias)

    part = audit(layer_of(Mixed), x, y, draws=600).parts["weight gradient"]
    bias_sq = ((x.round() - x).T @ y).square().sum() / 4
    assert abs(part.bias_sq - bias_sq) < 4.5 * part.bias_stderr
    assert abs(part.bias_sq - 1.4 * bias_sq) > 4.5 * part.bias_stderr  # must fail
    assert part.p_value < 1e-6


def test_a_sketched_layer_beside_its_closed_form_and_the_minibatch(pair):
    x, y = pair
    layer = layer_of(SketchedLinear, estimator=CountSketch(0.25))
    part = audit(layer, x, y, draws=300).parts["weight gradient"]
    m = Moments.of(x, y)
    assert abs(part.variance - CountSketch(0.25).variance(m)) < 4.5 * part.variance_stderr
    assert part.p_value > 1e-5
    assert part.minibatch == pytest.approx(by_row(m).item())
    three = audit(layer, x.reshape(8, 3, P), y.reshape(8, 3, Q), draws=4)
    expected = by_example(example_sq(x.reshape(8, 3, P), y.reshape(8, 3, Q)), m.C)
    assert three.parts["weight gradient"].minibatch == pytest.approx(expected.item())
    assert torch.isnan(torch.tensor(three.parts["output"].minibatch))


def test_the_published_recipe_has_its_bias_and_its_variance():
    """X to the nearest, Y at random: each part beside its closed form."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(32, d, generator=g, dtype=torch.float64) for d in (P, Q))
    estimator, m = parse("nvfp4-recipe"), Moments.of(x, y)
    layer = layer_of(SketchedLinear, estimator=estimator)
    parts = audit(layer, x, y, draws=200).parts
    part, bias_sq = parts["weight gradient"], estimator.bias_sq(m)
    spread = estimator.variance(m) - bias_sq
    assert bias_sq > 0 and spread > 0
    assert abs(part.bias_sq - bias_sq) < 4.5 * part.bias_stderr
    assert abs(part.variance - spread) < 4.5 * part.variance_stderr
    assert abs(part.variance - bias_sq - spread) > 4.5 * part.variance_stderr  # must fail
    assert part.p_value < 1e-5
    assert parts["output"].p_value == parts["input gradient"].p_value == 1


@pytest.mark.parametrize("size, shift", [(1, 1.0), (20, 0.5)])
def test_the_level_is_held(size, shift):
    """Of 300 audits without a bias, 5 % are below 0.05: 3 to 31 with a probability of 0.9998."""
    low, high = binom.ppf([1e-4, 1 - 1e-4], 300, 0.05)
    g, zero = torch.Generator().manual_seed(0), torch.zeros(size, dtype=torch.float64)

    def count(shift):
        errors = torch.randn(300, 16, size, generator=g, dtype=torch.float64) + shift
        return sum(judge(list(each), zero).p_value < 0.05 for each in errors)

    assert low <= count(0.0) <= high
    assert count(shift) > high  # must fail


def test_estimates_are_unbiased_and_their_errors_true():
    """Over 300 audits: means within 4.5 standard errors, errors within 20 %."""
    g, zero = torch.Generator().manual_seed(0), torch.zeros(20, dtype=torch.float64)
    scale = torch.linspace(0.1, 2, 20, dtype=torch.float64)
    errors = torch.randn(300, 16, 20, generator=g, dtype=torch.float64) * scale + 0.5
    parts = [judge(list(each), zero) for each in errors]
    for field, truth in (("bias_sq", 5.0), ("variance", scale.square().sum())):
        values = torch.tensor([getattr(part, field) for part in parts])
        name = "bias_stderr" if field == "bias_sq" else "variance_stderr"
        stderr = torch.tensor([getattr(part, name) for part in parts]).square().mean().sqrt()
        assert abs(values.mean() - truth) < 4.5 * values.std() / 300**0.5
        assert stderr == pytest.approx(values.std().item(), rel=0.2)


def test_an_adapter_of_peft_is_compared_without_its_dropout():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["0"], lora_dropout=0.3, init_lora_weights=False)
    model = peft.get_peft_model(nn.Sequential(nn.Linear(P, Q)), config)
    layer = model.base_model.model[0].train()
    x, y = torch.randn(N, P), torch.randn(N, Q)
    found = audit(layer, x, y, draws=100)
    (first, second) = ("lora_A.default.weight gradient", "lora_B.default.weight gradient")
    assert {first, second} < set(found.parts) and "weight gradient" not in found.parts
    for part in found.parts.values():
        assert part.variance > 0 and part.p_value > 1e-5
    assert found.parts[first].minibatch > 0
    assert audit(layer.eval(), x, y, draws=4).parts[first].variance == 0


def test_buffers_and_random_numbers_are_as_before(pair):
    x, y = pair

    class Counts(nn.Linear):
        def forward(self, x):
            self.calls = self.calls + 1
            return super().forward(x) * self.calls

    layer = layer_of(Counts)
    layer.register_buffer("calls", torch.zeros((), dtype=torch.float64))
    state = torch.get_rng_state()
    found = audit(layer, x, y, draws=5)
    assert found.parts["output"].variance == 0 and layer.calls == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_compared_is_told(pair):
    x, y = pair
    layer = layer_of(Rounded)
    layer.extra = nn.Parameter(torch.ones(()))
    layer.forward = lambda x: Rounded.forward(layer, x) * layer.extra
    left_out = audit(layer, x, y, draws=4).left_out
    assert left_out == {"extra gradient": "the reference has none"}
    frozen = layer_of(nn.Linear).requires_grad_(False)
    assert list(audit(frozen, x, y, draws=4).parts) == ["output", "input gradient"]


def test_bad_input(pair):
    x, y = pair
    linear = layer_of(nn.Linear)
    with pytest.raises(ValueError, match="4 draws or more"):
        audit(linear, x, y, draws=3)
    with pytest.raises(ValueError, match=r"x \(... × p\) and y"):
        audit(linear, x, y[:3])
    with pytest.raises(ValueError, match=r"LayerNorm has one of shape \(6,\); give reference="):
        audit(nn.LayerNorm(P, dtype=torch.float64), x, x)
    with pytest.raises(ValueError, match="Identity has none"):
        audit(nn.Identity(), x, x)
    with pytest.raises(ValueError, match=r"output of Linear: it is not finite"):
        audit(linear, x * torch.inf, y)
    with pytest.raises(ValueError, match=r"the shape of y, \(24, 5\); that of Linear is \(24, 7\)"):
        audit(nn.Linear(P, 7).double(), x, y, reference=linear)
    with torch.inference_mode():
        detached = linear(x)
    linear.forward = lambda x: detached.clone()
    with pytest.raises(ValueError, match="its output has no graph"):
        audit(linear, x, y)


# the command


MODULE = """
import torch
from torch import nn

class Rounded(nn.Linear):
    def forward(self, x):
        return super().forward(x + (x.round() - x).detach())

def rounded():
    return Rounded(6, 5)

def real():
    torch.manual_seed(0)
    return rounded(), torch.ones(4, 6), torch.ones(4, 5)

def number():
    return 3

def odd():
    return nn.Bilinear(2, 3, 4)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "layers_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command(here, capsys):
    assert command(["audit", "layers_of_mine:rounded", "--rows", "32", "--draws", "4"]) == 0
    assert list(here.glob("runs/audit-layers_of_mine-rounded-*/audit.parquet"))
    printed = capsys.readouterr().out
    assert "BIASED: output, weight gradient." in " ".join(printed.split())
    assert "x and y are normal numbers" in printed
    words = ["audit", "layers_of_mine:real", "--draws", "4", "--json", "--out", "audit"]
    assert command(words) == 0
    (first, *_) = json.loads(capsys.readouterr().out)["audit"]
    assert first["part"] == "output" and abs(first["bias_sq"]) < 1e-9 and not first["biased"]
    assert command(["figures", "audit"]) == 0
    assert "No bias is seen." in capsys.readouterr().out


def test_the_command_says_what_is_wrong(here, capsys):
    for place, why in {
        "layers_of_mine": "named by package.module:factory",
        "layers_of_mine:nothing": "cannot be found",
        "nowhere_at_all:x": "cannot be found",
        "layers_of_mine:number": "it gives int",
        "layers_of_mine:odd": "without in_features and out_features",
    }.items():
        assert command(["audit", place]) == 2
        assert why in capsys.readouterr().err
    assert len(list(here.glob("runs/*"))) == 1  # of the one that could be loaded
    assert isinstance(load("torch.nn:Identity")[0], nn.Identity)
