"""Every parameter of models that people train, against torch.func, example by example."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sketchvar.analysis.noise.parameters import Gradient, tabulate_noise
from sketchvar.analysis.probe import Probe

transformers = pytest.importorskip("transformers")
S, T = 4, 6
SMALL = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 16,
}  # fmt: skip
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
IMAGE = {"image_size": 8, "patch_size": 4, "num_channels": 3}


def ids(seed, length=T):
    return torch.randint(1, 40, (S, length), generator=torch.Generator().manual_seed(seed))


def images():
    return torch.randn(S, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), {"input_ids": ids(0)}


def llama():
    config = transformers.LlamaConfig(**SMALL, num_key_value_heads=1)
    return transformers.LlamaForCausalLM(config), {"input_ids": ids(0)}


def bert():
    config = transformers.BertConfig(**SMALL, **STILL)
    return transformers.BertForMaskedLM(config), {"input_ids": ids(0)}


def vit():
    sizes = {key: SMALL[key] for key in list(SMALL)[1:5]}
    config = transformers.ViTConfig(**sizes, **STILL, **IMAGE)
    return transformers.ViTForImageClassification(config), {"pixel_values": images()}


def convnext():
    config = transformers.ConvNextConfig(
        hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, layer_scale_init_value=0.5,
        **IMAGE | {"patch_size": 2},
    )  # fmt: skip
    return transformers.ConvNextForImageClassification(config), {"pixel_values": images()}


def t5():
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    given = {"input_ids": ids(0), "decoder_input_ids": ids(1, T - 1)}
    return transformers.T5ForConditionalGeneration(config), given


def mixtral(experts="grouped_mm"):
    config = transformers.MixtralConfig(
        **SMALL, num_key_value_heads=1, num_local_experts=3, num_experts_per_tok=2
    )
    config._experts_implementation = experts
    return transformers.MixtralForCausalLM(config), {"input_ids": ids(0)}


class ResNet(nn.Module):
    """A block of a ResNet with GroupNorm, its convolutions of all sorts."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False, groups=2)
        self.second = nn.Conv2d(4, 4, 3, padding=2, dilation=2, padding_mode="circular")
        self.norms = nn.ModuleList(nn.GroupNorm(2, 4) for _ in range(2))
        self.head = nn.Linear(4, 3)

    def forward(self, pixel_values):
        h = F.relu(self.norm(self.stem(pixel_values)), inplace=True)
        inner = F.relu(self.norms[0](self.first(h)), inplace=True)
        return self.head((h + self.norms[1](self.second(inner))).mean((2, 3)))


class Sub(nn.Linear):
    """A subclass with a forward of its own that computes xWᵀ."""

    def forward(self, x):
        return F.linear(x, self.weight) + self.bias


class Odd(nn.Module):
    """What is left: one of each."""

    def __init__(self):
        super().__init__()
        self.sparse = nn.Embedding(9, 6, padding_idx=0, sparse=True)
        self.positions = nn.Embedding(T, 6)
        self.start, self.scale = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.ones(()))
        self.rms, self.attention = nn.RMSNorm(6), nn.MultiheadAttention(6, 2, batch_first=True)
        self.conv = nn.Conv1d(6, 6, 3, padding=1, padding_mode="reflect", groups=3)
        self.up, self.norm = nn.ConvTranspose1d(6, 4, 3, 2), nn.InstanceNorm1d(4, affine=True)
        self.bilinear, self.prelu = nn.Bilinear(4, 4, 3), nn.PReLU(3)
        self.sub, self.cube = Sub(3, 3), nn.Conv3d(1, 2, 2)
        self.effective = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
        self.still = nn.Linear(3, 3)
        self.still.weight.requires_grad = False

    def forward(self, input_ids):
        h = self.sparse(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        h = torch.cat([self.start.expand(len(h), -1, -1), self.rms(h)], 1)
        h = h + self.attention(h, h, h)[0]
        h = self.norm(self.up(self.conv(h.mT))).square().mean(2)
        h = self.effective(self.prelu(self.bilinear(h, h))) * self.scale.exp()
        cube = self.cube(h[:, None, :, None, None].expand(-1, -1, 3, 2, 2)).mean((2, 3, 4))
        return torch.cat([self.still(self.sub(h)), cube], 1)


MODELS = {
    "gpt2": gpt2, "llama": llama, "bert": bert, "vit": vit, "convnext": convnext, "t5": t5,
    "mixtral": mixtral, "mixtral, a loop": lambda: mixtral("eager"),
    "resnet": lambda: (ResNet(), {"pixel_values": images()}),
    "odd": lambda: (Odd(), {"input_ids": ids(3) % 9}),
}  # fmt: skip


def loss(out):
    """A mean over examples, of something that tells all outputs apart."""
    logits = (out if isinstance(out, torch.Tensor) else out.logits).flatten(1)
    return 30 * (logits.square() + logits.softmax(-1)).mean()


def by_func(model, batch):
    """The gradient of every trained parameter by example (S × size), in the scale of the mean."""
    params = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    def of_one(params, one):
        return loss(torch.func.functional_call(model, params, (), one)) / S

    each = [
        torch.func.grad(of_one)(params, {k: v[s : s + 1] for k, v in batch.items()})
        for s in range(S)
    ]
    return {n: torch.stack([g[n].to_dense().flatten() for g in each]).double() for n in params}


def build(name):
    torch.manual_seed(0)
    model, batch = MODELS[name]()
    return model.train(), batch


def agree(gradient, truth, whole):
    """Whether squares, inner products where they are known, and ‖G‖² agree to 1e-5, of each
    parameter; of the whole model where the gradient is 0, as that of a key's bias is.
    """
    pairs = [
        (gradient.example_sq, truth.square().sum(1)),
        (gradient.C, truth.sum(0).square().sum()),
    ]
    if gradient.inner is not None:
        pairs.append((gradient.inner, truth @ truth.sum(0)))
    return all(bool((a - b).abs().max() <= 1e-5 * b.abs().max() + 1e-9 * whole) for a, b in pairs)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_against_torch_func(name):
    """Must fail: a gradient that is 5 % wrong in one example."""
    model, batch = build(name)
    truth = by_func(model, batch)
    whole = float(sum(g.square().sum() for g in truth.values()))
    with warnings.catch_warnings(), Probe(model) as probe:
        warnings.simplefilter("ignore")
        loss(model(**batch)).backward()
        probe.read()
    assert set(probe.gradients) == set(truth)
    for parameter, found in probe.gradients.items():
        assert isinstance(found, Gradient), (parameter, found)
        assert agree(found, truth[parameter], whole), parameter
    wrong = truth[parameter].clone()
    wrong[0] *= 1.05
    assert not agree(found, wrong, 0.0)
    table = probe.coverage()
    trained = table[table["reason"] != "frozen: it has no gradient"]
    assert trained["measured"].all() and trained["share"].sum() == pytest.approx(1)


class Scale(nn.Module):
    """A norm as Hugging Face has it: arithmetic with its weight."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, size))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


class Words(nn.Module):
    """An embedding, both sorts of norms and a layer, over rows in whatever dimensions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.scale = nn.Embedding(9, 6), Scale(6)
        self.norm, self.out = nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, words):
        return self.out(torch.tanh(self.scale(self.norm(self.table(words)))))


def words(seed=0, count=S, length=5):
    return torch.randint(9, (count, length), generator=torch.Generator().manual_seed(seed))


def of_examples(model, examples):
    """Gradients by example, one backward pass each: the loss sums over examples."""
    found = {name: [] for name, _ in model.named_parameters()}
    for one in examples:
        model.zero_grad()
        model(one).square().sum().backward()
        for name, p in model.named_parameters():
            found[name].append(p.grad.flatten().double())
    model.zero_grad()
    return {name: torch.stack(each) for name, each in found.items()}


def read(model, backward, **options):
    with Probe(model, **options) as probe:
        backward()
        probe.read()
    return probe.gradients


def packed(model):
    numbers = torch.tensor([0, 0, 1, 1, 1, 2, -1, 3, 3])
    row = words(5, 1, 9)[0]
    examples = [row[numbers == s] for s in range(4)]

    def backward():
        out = model(row[None]).square().sum(-1)[0]
        out[numbers >= 0].sum().backward()

    return examples, backward, {"examples": numbers[None]}


def twice(model):
    """Gradients of two passes, the second after ``.grad`` held something of a step before."""
    model(words(9)).sum().backward()  # before the step
    parts = words(0), words(1)

    def backward():
        for part in parts:
            model(part).square().sum().backward()

    return [*parts[0], *parts[1]], backward, {}


def again(model):
    """Several evaluations with clearing between them, as LBFGS has: the last counts."""

    def backward():
        for seed in (3, 0):
            model.zero_grad()
            model(words(seed)).square().sum().backward()

    return [*words(0)], backward, {}


LAYOUTS = {
    "one pass": lambda m: ([*words()], lambda: m(words()).square().sum().backward(), {}),
    "sequences first": lambda m: (
        [*words()], lambda: m(words().T.contiguous()).square().sum().backward(), {"examples": 1},
    ),
    "a mask": lambda m: (
        [*words()], lambda: m(words()).square().sum().backward(),
        {"examples": torch.ones(S, 5, dtype=torch.bool)},
    ),
    "flat": lambda m: (
        [*words()], lambda: m(words().flatten()).square().sum().backward(),
        {"examples": torch.arange(S).repeat_interleave(5)},
    ),
    "as many examples as positions": lambda m: (
        [*words(0, 5)], lambda: m(words(0, 5)).square().sum().backward(), {},
    ),
    "checkpointing": lambda m: (
        [*words()],
        lambda: checkpoint(m, words(), use_reentrant=False).square().sum().backward(), {},
    ),
    "a scaled loss": lambda m: (
        [*words()],
        lambda: (m(words()).square().sum() * 1024).backward(),
        {"scaler": torch.amp.GradScaler("cpu", init_scale=1024.0)},
    ),
    "packed": packed, "accumulated": twice, "evaluated again": again,
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_rows_and_passes(layout):
    model = Words()
    examples, backward, options = LAYOUTS[layout](model)
    truth = of_examples(Words(), examples)
    found = read(model, backward, **options)
    for name, each in truth.items():
        assert isinstance(found[name], Gradient), (name, found[name])
        assert agree(found[name], each, 0.0), name


def test_a_mean_over_tokens_of_every_parameter():
    """As the layer's own weight is measured, by the form of ``noise.by_example``."""
    model, batch, counts = Words(), words(), torch.tensor([1.0, 2.0, 3.0, 4.0])
    truth = of_examples(Words(), batch)
    found = read(model, lambda: model(batch).square().sum().backward(), weights=counts)
    w = counts.double() / counts.sum()
    rows = tabulate_noise([[g for g in found.values()]])
    for name, *rest in rows[: len(truth)]:
        each = truth[name]
        G = each.sum(0)
        want = ((each - w[:, None] * G).square().sum(1) / (1 - w)).sum()
        assert rest[5] == pytest.approx(float(want), rel=1e-4), name


class Routes(nn.Module):
    """Experts whose rows are picked in a layout of their own: the largest rows, sorted."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.experts = nn.ModuleList([OwnLayout()])

    def forward(self, words):
        return self.experts[0](self.first(words).flatten(0, 1))


class OwnLayout(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(2, 6, 3))

    def forward(self, x):
        order = x.sum(1).argsort()
        x = torch.stack([x[order[::2]], x[order[1::2]]])
        return torch.bmm(x, self.weights)


def test_experts_in_a_layout_of_their_own_are_reported_and_training_goes_on():
    torch.manual_seed(0)
    model, x = Routes(), torch.randn(S, T, 6)
    found = read(model, lambda: model(x).square().sum().backward())
    gradient = model.experts[0].weights.grad.clone()
    assert "not known" in found["experts.0.weights"]
    assert isinstance(found["first.bias"], Gradient)
    model.zero_grad()
    model(x).square().sum().backward()
    torch.testing.assert_close(gradient, model.experts[0].weights.grad)


def test_what_else_reads_a_parameter_is_noticed():
    """A penalty on a norm: its own part is measured, and coverage says so."""
    model, batch = Words(), words()
    truth = of_examples(Words(), batch)

    def backward():
        (model(batch).square().sum() + 3 * model.norm.weight.square().sum()).backward()

    with Probe(model) as probe:
        backward()
        found = (probe.read(), probe.gradients)[1]
    assert agree(found["norm.weight"], truth["norm.weight"], 0.0)
    notes = probe.coverage().set_index("parameter")["note"]
    assert "is measured" in notes["norm.weight"] and not notes["norm.bias"]
