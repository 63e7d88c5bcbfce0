"""Every kind of module and model that the probe covers, against explicit per-example gradients by
torch.func.
"""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad
from torch.nn import functional as F

from sketchvar.analysis import noise
from sketchvar.analysis.probe import Probe

B = 3


def explicit(model, share):
    """Parameter -> gradients of every example's share of the loss, ``share(call, s)``."""
    model = copy.deepcopy(model)  # a shared module does not survive functional_call
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def gradient(s):
        return grad(lambda w: share(lambda *a, **k: functional_call(model, w, a, k), s))(weights)

    gradients = [gradient(s) for s in range(B)]
    return {name: torch.stack([g[name].double().flatten() for g in gradients]) for name in weights}


def check(model, share, expected, **options):
    """Probe the sum of all shares; compare each layer, a parameter or rows of one, with explicit
    gradients.
    """
    wanted = explicit(model, share)
    with Probe(model, **options) as probe:
        total(model, share).backward()
    layers = probe.read()
    assert set(layers) == set(expected)
    for name, where in expected.items():
        parameter, rows = where if isinstance(where, tuple) else (where, slice(None))
        g_s = wanted[parameter].view(B, *model.get_parameter(parameter).shape)[:, rows].flatten(1)
        torch.testing.assert_close(
            layers[name].moments.C, g_s.sum(0).square().sum(), rtol=1e-5, atol=0, msg=name
        )
        torch.testing.assert_close(
            layers[name].example_sq, g_s.square().sum(1), rtol=1e-5, atol=1e-14, msg=name
        )
        variance = B / (B - 1) * (g_s - g_s.mean(0)).square().sum()
        found = noise.by_example(layers[name].example_sq, layers[name].moments.C)
        assert abs(found - variance) <= 1e-5 * B / (B - 1) * g_s.square().sum(), (
            name
        )  # it is a difference
        assert layers[name].examples == B
    return probe


def total(model, share):
    """The loss as a user would write it: all examples in one call."""
    return share(model, slice(None))


def at(t, s):
    """Example s of a batch, as a batch of one; or all."""
    return t if isinstance(s, slice) else t[s : s + 1]


def same(*names):
    return {name: f"{name}.weight" for name in names}


def linears(model, *but):
    return same(
        *(n for n, m in model.named_modules() if type(m) in (nn.Linear, nn.Conv2d) and n not in but)
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": "same", "padding_mode": "reflect"},
        {"dilation": 2, "bias": False},
    ],
)
def test_convolution(options):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, **options), nn.Tanh(), nn.Conv2d(4, 3, 1), nn.Flatten(), nn.LazyLinear(5)
    )
    x = torch.randn(B, 2, 7, 6)
    model(x)
    check(model, lambda call, s: call(at(x, s)).square().sum(), same("0", "2", "4"))


def test_grouped_convolution_is_no_single_product():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(4, 2))
    with Probe(model) as probe:
        model(torch.randn(B, 4, 3, 3)).sum().backward()
    assert set(probe.read()) == {"2"}
    note = probe.coverage().set_index("parameter")["note"]["0.weight"]
    assert note.endswith("its 2 groups are as many products, not one")


@pytest.mark.parametrize("batch_first", [True, False])
def test_self_attention(batch_first):
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=batch_first)
    x = torch.randn(B, 5, 8)

    def share(call, s):
        t = at(x, s)
        return call(t if batch_first else t.transpose(0, 1)).pow(3).sum()

    expected = same("linear1", "linear2") | {
        "self_attn.in_proj": "self_attn.in_proj_weight",
        "self_attn.out_proj": "self_attn.out_proj.weight",
    }
    check(model, share, expected, examples=0 if batch_first else 1)


@pytest.mark.parametrize("kdim", [None, 6])
def test_cross_attention(kdim):
    torch.manual_seed(0)
    model = nn.MultiheadAttention(8, 2, batch_first=True, kdim=kdim, vdim=kdim)
    x, memory = torch.randn(B, 5, 8), torch.randn(B, 7, kdim or 8)

    def share(call, s):
        return call(at(x, s), at(memory, s), at(memory, s))[0].pow(3).sum()

    parts = {
        "in_proj[0:8]": ("in_proj_weight", slice(0, 8)),
        "in_proj[8:24]": ("in_proj_weight", slice(8, 24)),
    }
    if kdim:
        parts = {f"{k}_proj": f"{k}_proj_weight" for k in "qkv"}
    probe = check(model, share, parts | {"out_proj": "out_proj.weight"})
    assert probe.coverage()["measured"].all()


def test_module_used_several_times():
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), shared)
    x = torch.randn(B, 4, 6)
    check(model, lambda call, s: call(at(x, s)).pow(3).sum(), same("0"))


def test_frozen_and_low_rank_weights():
    peft = pytest.importorskip("peft", reason="peft is not installed")
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    model = peft.get_peft_model(
        inner, peft.LoraConfig(target_modules=["0"], r=2, init_lora_weights=False)
    )
    x = torch.randn(B, 5, 6)
    lora = [f"base_model.model.0.lora_{k}.default" for k in "AB"]
    probe = check(model, lambda call, s: call(at(x, s)).pow(3).sum(), same(*lora))
    reasons = probe.coverage().set_index("parameter")["reason"]
    assert reasons["base_model.model.0.base_layer.weight"] == "frozen: it has no gradient"


def labels(call, tokens, s, size):
    """Sum of next-token losses."""
    logits = call(input_ids=at(tokens, s)).logits
    return (
        F.cross_entropy(
            logits[:, :-1].flatten(0, 1), at(tokens, s)[:, 1:].flatten(), reduction="sum"
        )
        / size
    )


@pytest.mark.usefixtures("both_ways")
def test_gpt2():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=9, n_embd=8, n_layer=2, n_head=2, resid_pdrop=0
    )
    config.embd_pdrop = config.attn_pdrop = 0
    config.tie_word_embeddings = False
    model = transformers.GPT2LMHeadModel(config)
    tokens = torch.randint(40, (B, 9))
    conv1d = [n for n, m in model.named_modules() if type(m).__name__ == "Conv1D"]
    assert len(conv1d) == 8
    check(model, lambda call, s: labels(call, tokens, s, B), same("lm_head", *conv1d))


@pytest.mark.usefixtures("both_ways")
def test_llama():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config)
    tokens = torch.randint(40, (B, 6))
    check(model, lambda call, s: labels(call, tokens, s, B), linears(model))


def test_roberta():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=40,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
        max_position_embeddings=20,
    )
    model = transformers.RobertaForSequenceClassification(config)
    tokens, classes = torch.randint(3, 40, (B, 9)), torch.tensor([0, 1, 1])
    mask = torch.arange(9) < torch.tensor([[9], [4], [6]])

    def share(call, s):
        logits = call(input_ids=at(tokens, s), attention_mask=at(mask, s).long()).logits
        return F.cross_entropy(logits, at(classes, s), reduction="sum") / B

    probe = check(model, share, linears(model), examples=mask)
    rows = {name: (layer.rows, layer.moments.n) for name, layer in probe.read().items()}
    assert rows["roberta.encoder.layer.0.output.dense"] == (19, 27)
    assert rows["classifier.dense"] == (3, 3)


def test_t5():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=40,
        d_model=8,
        d_kv=4,
        d_ff=12,
        num_layers=1,
        num_heads=2,
        dropout_rate=0,
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    model = transformers.T5ForConditionalGeneration(config)
    model.lm_head.weight = nn.Parameter(
        model.lm_head.weight.detach().clone()
    )  # it is tied all the same
    tokens, targets = torch.randint(3, 40, (2, B, 7)).unbind()

    def share(call, s):
        logits = call(input_ids=at(tokens, s), labels=at(targets, s)).logits
        return F.cross_entropy(logits.flatten(0, 1), at(targets, s).flatten(), reduction="sum")

    check(model, share, linears(model))


def test_vit():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
    )
    model = transformers.ViTForImageClassification(config)
    images = torch.randn(B, 3, 8, 8)
    check(
        model, lambda call, s: call(pixel_values=at(images, s)).logits.pow(3).sum(), linears(model)
    )


@pytest.mark.parametrize("uses", [1, 2])
def test_head_tied_to_an_embedding_counts_its_own_part(uses):
    """Its product is what a sketch of the head would estimate; the embedding's part of the gradient
    is no product.
    """
    torch.manual_seed(0)
    tokens = torch.randint(11, (B, 5))

    class Tied(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.embed, self.mix, self.head = (
                nn.Embedding(11, 6),
                nn.Linear(6, 6),
                nn.Linear(6, 11, bias=False),
            )
            if tied:
                self.head.weight = self.embed.weight

        def forward(self, tokens):
            out = self.head(self.mix(self.embed(tokens)).tanh())
            return out if uses == 1 else out + self.head(self.embed(tokens)).tanh()

    torch.manual_seed(0)
    tied = Tied(True)
    untied = Tied(False)
    untied.load_state_dict(tied.state_dict())
    found = []
    for model in (tied, untied):
        with Probe(model) as probe:
            model(tokens).pow(3).sum().backward()
        found.append(probe.read()["head"])
    torch.testing.assert_close(found[0].moments.C, found[1].moments.C, rtol=1e-6, atol=0)
    torch.testing.assert_close(found[0].example_sq, found[1].example_sq, rtol=1e-6, atol=0)
    check(untied, lambda call, s: call(at(tokens, s)).pow(3).sum(), same("mix", "head"))


def test_a_class_with_a_forward_of_its_own_is_not_trusted():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(Doubled(4, 4), nn.Linear(4, 2))
    with Probe(model) as probe:
        model(torch.randn(B, 4)).sum().backward()
    assert set(probe.read()) == {"1"}
    assert "Doubled has a forward of its own" in probe.coverage()["note"][0]
