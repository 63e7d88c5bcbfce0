"""What an example and a row are, and which losses and loops the numbers are of: against explicit
gradients.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis import noise
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.probe.units import not_padding

NAMES = ("mix.0", "mix.2", "head")


class Words(nn.Module):
    """Token by token, so that packing changes nothing but the layout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, 6)
        self.mix = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))
        self.head = nn.Linear(6, 20, bias=False)

    def forward(self, tokens, attention_mask=None):
        return self.head(self.mix(self.embed(tokens)))


@pytest.fixture
def sequences():
    g = torch.Generator().manual_seed(1)
    return [torch.randint(20, (length,), generator=g) for length in (5, 2, 7, 4, 1)]


def loss_of(model, sequence):
    """Sum over its tokens."""
    return F.cross_entropy(model(sequence[None])[0], (sequence * 7 + 3) % 20, reduction="sum")


def gradients(sequences, weights):
    """Layer -> G_s of each sequence, whose loss has a weight."""
    found = {name: [] for name in NAMES}
    for sequence, weight in zip(sequences, weights, strict=True):
        model = Words()
        (weight * loss_of(model, sequence)).backward()
        for name in NAMES:
            found[name].append(model.get_submodule(name).weight.grad.double())
    return {name: torch.stack(each) for name, each in found.items()}


def assert_equal(layers, expected):
    """Up to the order of the examples."""
    for name, g_s in expected.items():
        found = layers[name].example_sq.sort().values
        torch.testing.assert_close(found, g_s.square().sum((1, 2)).sort().values, rtol=1e-5, atol=0)
        C = g_s.sum(0).square().sum()
        torch.testing.assert_close(layers[name].moments.C, C, rtol=1e-5, atol=0)
        assert layers[name].examples == len(g_s)


def packed(sequences, shape):
    """All tokens in one tensor with the number of each one's sequence, -1 for padding at the
    end.
    """
    numbers = torch.cat([torch.full_like(s, i) for i, s in enumerate(sequences)])
    short = shape[0] * shape[1] - len(numbers)
    return F.pad(torch.cat(sequences), (0, short)).view(shape), F.pad(
        numbers, (0, short), value=-1
    ).view(shape)


@pytest.mark.parametrize("shape", [(1, 19), (2, 10), (4, 6)])
@pytest.mark.parametrize("shuffled", [False, True])
def test_packed_sequences(sequences, shape, shuffled):
    tokens, numbers = packed(sequences, shape)
    if shuffled:
        order = torch.randperm(tokens.numel(), generator=torch.Generator().manual_seed(0))
        tokens, numbers = tokens.flatten()[order].view(shape), numbers.flatten()[order].view(shape)
    model = Words()
    with Probe(model, examples=lambda tokens: numbers) as probe:
        losses = F.cross_entropy(
            model(tokens).flatten(0, 1), (tokens.flatten() * 7 + 3) % 20, reduction="none"
        )
        losses[numbers.flatten() >= 0].sum().backward()
    layers = probe.read()
    assert_equal(layers, gradients(sequences, [1.0] * 5))
    assert {layer.rows for layer in layers.values()} == {19}


@pytest.mark.parametrize("tokens_mean", [False, True])
def test_padding_and_the_two_means(sequences, tokens_mean):
    """A mean over tokens gives every token its 1/19; a mean over sequences every sequence its
    1/5.
    """
    tokens = nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    mask = torch.arange(7) < torch.tensor([[len(s)] for s in sequences])
    model = Words()
    with Probe(model, examples=not_padding) as probe:
        logits = model(tokens, attention_mask=mask.long()).flatten(0, 1)
        losses = (
            F.cross_entropy(logits, (tokens.flatten() * 7 + 3) % 20, reduction="none").view(
                mask.shape
            )
            * mask
        )
        (
            losses.sum() / mask.sum() if tokens_mean else (losses.sum(1) / mask.sum(1)).mean()
        ).backward()
    layers = probe.read()
    assert_equal(
        layers,
        gradients(sequences, [1 / 19] * 5 if tokens_mean else [1 / 5 / len(s) for s in sequences]),
    )
    for layer in layers.values():
        assert (layer.rows, layer.moments.n) == (19, 35)
        m = layer.moments
        torch.testing.assert_close(noise.by_row(m, layer.rows), (19 * m.D - m.C) / 18)


def test_ignored_tokens_are_rows_without_a_gradient(sequences):
    tokens, numbers = packed(sequences, (1, 19))
    targets = torch.where(torch.arange(19) % 3 == 0, -100, (tokens * 7 + 3) % 20)
    model = Words()
    with Probe(model, examples=torch.where(targets == -100, -1, numbers)) as probe:
        F.cross_entropy(model(tokens)[0], targets[0], reduction="sum").backward()
    assert {layer.rows for layer in probe.read().values()} == {12}
    assert all(layer.moments.y_sq.gt(0).sum() == 12 for layer in probe.read().values())


@pytest.mark.parametrize("shared", [False, True])
def test_accumulated_gradients_are_one_large_batch(sequences, shared):
    """Micro-batches of 2, 2 and 1 sequences; ``shared``: the head's weight is also a second, unused
    module's.
    """
    model = Words()
    if shared:
        model.other = nn.Linear(6, 20, bias=False)
        model.other.weight = model.head.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, examples=lambda tokens: numbers) as probe:
        for _ in range(2):  # the second step has a gradient of zeros to begin with
            model.load_state_dict(Words().state_dict(), strict=False)
            for some in (sequences[:2], sequences[2:4], sequences[4:]):
                tokens, numbers = packed(some, (1, sum(map(len, some))))
                (
                    F.cross_entropy(model(tokens)[0], (tokens[0] * 7 + 3) % 20, reduction="sum")
                    / 19
                ).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            found = probe.read()
            probe.step()
            assert_equal(found, gradients(sequences, [1 / 19] * 5))
            assert found["head"].moments.n == 19


@pytest.mark.parametrize("unscaled", [False, True])
def test_grad_scaler_and_clipping(sequences, unscaled):
    """All is in the scale of the gradient before the scaler, and before clipping."""
    model = Words()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens, numbers = packed(sequences, (1, 19))
    with Probe(model, examples=numbers, scaler=scaler) as probe:
        loss = F.cross_entropy(model(tokens)[0], (tokens[0] * 7 + 3) % 20, reduction="sum")
        scaler.scale(loss).backward()
        if unscaled:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        found = probe.read()
    assert_equal(found, gradients(sequences, [1.0] * 5))


def test_a_step_that_the_scaler_skips_is_reported_and_the_next_is_measured(sequences):
    model = Words()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens, numbers = packed(sequences, (1, 19))
    found = []
    with (
        pytest.warns(UserWarning, match="not finite"),
        Probe(model, examples=numbers, scaler=scaler) as probe,
    ):
        for _ in range(2):
            loss = F.cross_entropy(model(tokens)[0], (tokens[0] * 7 + 3) % 20, reduction="sum")
            scaler.scale(64 * loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            found.append(probe.read())
            probe.step()
    assert not found[0]
    assert_equal(found[1], gradients(sequences, [64.0] * 5))
    assert probe.coverage().set_index("parameter")["not_finite"]["head.weight"] == 1
