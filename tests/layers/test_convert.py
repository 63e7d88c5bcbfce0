"""sketch_linears and unsketch on real architectures: same parameters, nothing skipped silently, all
of it undone.
"""

import copy
import io

import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from sketchvar.estimators import (
    CountSketch,
    Gaussian,
    SketchedConv2d,
    SketchedLinear,
    UniformRows,
    sketch_linears,
    unsketch,
)
from sketchvar.estimators.layers.linear import Sketched

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


TOKENS = torch.arange(48).reshape(4, 12) % 50


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def bert():
    config = transformers.BertConfig(vocab_size=50, **SMALL, **NO_DROPOUT)
    return transformers.BertForMaskedLM(config), lambda m: m(TOKENS, labels=TOKENS).loss


def roberta():
    config = transformers.RobertaConfig(
        vocab_size=50, max_position_embeddings=20, **SMALL, **NO_DROPOUT
    )
    model = transformers.RobertaForSequenceClassification(config)
    return model, lambda m: m(TOKENS + 2, labels=torch.tensor([0, 1, 0, 1])).loss


def gpt2():
    dropouts = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=20, **dropouts
    )
    return transformers.GPT2LMHeadModel(config), lambda m: m(TOKENS, labels=TOKENS).loss


def llama():
    config = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, **SMALL)
    return transformers.LlamaForCausalLM(config), lambda m: m(TOKENS, labels=TOKENS).loss


def vit():
    config = transformers.ViTConfig(
        image_size=16, patch_size=4, num_labels=3, **SMALL, **NO_DROPOUT
    )
    model, images = transformers.ViTForImageClassification(config), torch.randn(4, 3, 16, 16)
    return model, lambda m: m(images, labels=torch.tensor([0, 1, 2, 0])).loss


def t5():
    config = transformers.T5Config(
        vocab_size=50,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return (
        transformers.T5ForConditionalGeneration(config),
        lambda m: m(input_ids=TOKENS, labels=TOKENS).loss,
    )


def convnet():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16, 3),
    )  # fmt: skip
    images = torch.randn(8, 3, 16, 16)
    return model, lambda m: m(images).square().mean()


ARCHITECTURES = [bert, roberta, gpt2, llama, vit, t5, convnet]


def gradients(model, loss, seed=0):
    model.zero_grad()
    torch.manual_seed(seed)
    value = loss(model)
    value.backward()
    return value.detach(), {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures(architecture):
    torch.manual_seed(0)
    model, loss = architecture()
    model.train()
    before = copy.deepcopy(model)
    names = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    exact_loss, exact = gradients(before, loss)

    report = sketch_linears(model, UniformRows(0.25))
    owners = {
        name
        for name, m in model.named_modules()
        if any(p.ndim > 1 for p in m.parameters(recurse=False))
    }
    assert report.converted.keys() | report.skipped.keys() == owners
    kinds = (nn.Linear, nn.Conv2d, Conv1D)
    assert report.converted.keys() == {n for n, m in model.named_modules() if isinstance(m, kinds)}
    assert {
        name: id(p) for name, p in model.named_parameters(remove_duplicate=False)
    } == names  # ties too
    assert model.state_dict().keys() == before.state_dict().keys()

    sketched_loss, found = gradients(model, loss)
    assert torch.equal(exact_loss, sketched_loss)
    estimated = {f"{name}.weight" for name in report.converted}
    for (
        name,
        gradient,
    ) in exact.items():  # what reaches any other parameter went through exact input gradients
        if (
            name in estimated
            or "embed" in name
            or name in ("shared.weight", "transformer.wte.weight")
        ):
            continue
        assert torch.allclose(found[name], gradient, atol=1e-5), name
    different = [
        name
        for name in estimated
        if name in exact and not torch.allclose(found[name], exact[name], atol=1e-7)
    ]
    assert len(different) >= len(report.converted) - 2

    assert set(unsketch(model)) == report.converted.keys()
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    again_loss, again = gradients(model, loss)
    assert torch.equal(again_loss, exact_loss) and all(
        torch.equal(again[name], exact[name]) for name in exact
    )


def test_training_goes_on_over_conversion_with_the_optimizer_it_had():
    model, loss = bert()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for step in range(14):
        if step == 5:
            sketch_linears(model, CountSketch(0.5))
        if step == 10:
            unsketch(model)
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert len(optimizer.state) == len(list(model.parameters())) - sum(
        p.grad is None for p in model.parameters()
    )
    assert losses[-1] < 0.7 * losses[0]


def test_siblings_of_a_real_model_share():
    model, loss = llama()
    model.config.use_cache = False
    calls = []
    sketch_linears(model, Counting(0.5, calls))
    loss(model).backward()
    assert len(calls) == 2 * 4 + 1  # qkv, o, gate and up, down; and the head


class Counting(UniformRows):
    def __init__(self, rate, calls):
        super().__init__(rate)
        object.__setattr__(self, "calls", calls)

    def compress(self, x, seed):
        self.calls.append(seed)
        return super().compress(x, seed)

    __hash__ = UniformRows.__hash__


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("architecture", [bert, llama])
def test_checkpointing_of_real_models(architecture, reentrant):
    model, loss = architecture()
    model.train()
    sketch_linears(model, CountSketch(0.3))
    plain = gradients(model, loss)[1]
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    again = gradients(model, loss)[1]
    assert all(torch.allclose(plain[name], again[name], atol=1e-6) for name in plain)


def test_patterns_and_mappings():
    model, _ = bert()
    report = sketch_linears(model, CountSketch(0.5), include="*attention*", exclude=["*.1.*"])
    assert len(report.converted) == 4 and all(
        "layer.0.attention" in name for name in report.converted
    )
    assert report.skipped["bert.encoder.layer.1.attention.self.query"] == "in exclude"
    assert report.skipped["cls.predictions.decoder"] == "not in include"
    again = sketch_linears(model, {"*.query": Gaussian(0.5), "*attention*": UniformRows(0.5)})
    assert again.converted["bert.encoder.layer.0.attention.self.query"] == Gaussian(0.5)
    assert again.converted["bert.encoder.layer.1.attention.self.key"] == UniformRows(0.5)
    assert again.skipped["cls.predictions.decoder"] == "no estimator was given for it"
    assert "bert.embeddings.word_embeddings: not sketched, it is an Embedding" in str(again)


def test_wrong_patterns_and_estimators_change_nothing(unchecked):
    model, _ = convnet()
    for arguments in ({"include": "conv*"}, {"exclude": ["0", "quary"]}):
        with pytest.raises(
            ValueError, match="matches no layer of the model; its layers are 0, 2, 5"
        ):
            sketch_linears(model, CountSketch(0.5), **arguments)
    with pytest.raises(TypeError, match=r"needs an Estimator for '\*', got 0.1"):
        sketch_linears(model, 0.1)
    assert not any(isinstance(m, Sketched) for m in model.modules())


class Inherited(nn.Linear):
    """A subclass that changes nothing of forward."""


@pytest.mark.parametrize("first", ["b[0]", "b*"])
def test_a_name_with_brackets_is_the_layer_of_that_name(first):
    model = nn.ModuleDict({key: nn.Linear(4, 4) for key in ("b[0]", "b0", "b*", "b?")})
    own = {name: CountSketch((i + 1) / 10) for i, name in enumerate(model)}
    assert sketch_linears(model, own).converted == own
    assert list(sketch_linears(model, own[first], include=first).converted) == [first]
    assert first not in sketch_linears(model, own[first], exclude=[first]).converted
    rest = sketch_linears(model, {"b[!0]": Gaussian(0.5), "*": UniformRows(0.5), first: own[first]})
    assert rest.converted[first] == own[first]  # its own name comes first, wherever it stands
    assert rest.converted["b?"] == Gaussian(0.5) and rest.converted["b0"] == UniformRows(0.5)


def test_multihead_attention_and_encoder_layers_still_run():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    plain = copy.deepcopy(layer)
    report = sketch_linears(layer, CountSketch(0.5))
    assert set(report.converted) == {"linear1", "linear2"}
    x = torch.randn(3, 5, 8)
    assert torch.equal(layer(x), plain(x))
    with torch.no_grad():
        assert torch.equal(layer.eval()(x), plain.eval()(x))


class Adapter(nn.Module):
    """LoRA as adapter libraries write it: a frozen base layer and two small ones beside it."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)})

    @property
    def weight(self):
        return self.base_layer.weight

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


def test_adapters_keep_their_frozen_base_and_sketch_their_own():
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), Adapter(nn.Linear(16, 8)))
    plain = copy.deepcopy(model)
    sketch_linears(model, UniformRows(0.25))
    assert not model[2].base_layer.weight.requires_grad
    x = torch.randn(32, 16)
    _, exact = gradients(plain, lambda m: m(x).square().sum())
    _, found = gradients(model, lambda m: m(x).square().sum())
    assert found.keys() == exact.keys()
    assert torch.allclose(found["0.bias"], exact["0.bias"], atol=1e-4)
    assert not torch.allclose(found["2.lora_A.default.weight"], exact["2.lora_A.default.weight"])


def test_tied_and_reused_layers():
    shared = nn.Linear(6, 6)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(6, 6))
    model[3].weight = shared.weight
    sketch_linears(model, CountSketch(0.5))
    assert model[0] is model[2] and model[3].weight is model[0].weight
    x = torch.randn(40, 6)
    model(x).sum().backward()
    assert torch.isfinite(model[0].weight.grad).all()


def test_modes_pickle_deepcopy_and_checkpoints():
    model = nn.Sequential(nn.Linear(6, 6), Inherited(6, 6), nn.Conv2d(3, 3, 1), Conv1D(5, 6))
    model[0].eval()
    model[1].register_forward_pre_hook(hook)
    sketch_linears(model, CountSketch(0.5))
    assert [m.training for m in model] == [False, True, True, True]
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (torch.load(file, weights_only=False), copy.deepcopy(model)):
        assert [type(m) for m in twin] == [type(m) for m in model]
        assert isinstance(twin[0], SketchedLinear) and isinstance(twin[2], SketchedConv2d)
        assert isinstance(twin[1], Inherited) and isinstance(twin[3], Conv1D)
        assert twin[1].estimator == CountSketch(0.5) and twin[1]._forward_pre_hooks
        unsketch(twin)
        assert [type(m) for m in twin] == [nn.Linear, Inherited, nn.Conv2d, Conv1D]
        assert "estimator" not in twin[0].__dict__
    plain = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Conv2d(3, 3, 1), Conv1D(5, 6))
    plain.load_state_dict(model.state_dict())


def hook(module, arguments):
    return None


def test_unsketch_refuses_a_class_that_is_no_longer_its_own():
    layer = SketchedLinear(4, 4, CountSketch(0.5))
    parametrize.register_parametrization(layer, "weight", nn.Identity())
    layer(torch.randn(8, 4)).sum().backward()
    with pytest.raises(ValueError, match="has become a ParametrizedSketchedLinear; undo first"):
        unsketch(layer)
    parametrize.remove_parametrizations(layer, "weight")
    assert unsketch(layer) == [""] and type(layer) is nn.Linear


def test_a_single_layer_as_the_model():
    layer = nn.Linear(4, 4)
    assert sketch_linears(layer, CountSketch(0.5)).converted == {"": CountSketch(0.5)}
    assert isinstance(layer, SketchedLinear)
    assert unsketch(layer) == [""] and type(layer) is nn.Linear
