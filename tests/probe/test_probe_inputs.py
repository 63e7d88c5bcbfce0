"""Which layers read the same input, as the probe sees it and as sketched layers share their
copies.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sketchvar.analysis.probe import Probe
from sketchvar.analysis.tasks.stdlib_lm import Transformer
from sketchvar.estimators import CountSketch, sketch_linears


class Readers(nn.Module):
    """a, b and d read the same tensor, c another in between, which b reads too where ``again``."""

    def __init__(self, again=False):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = (nn.Linear(16, 16) for _ in range(4))
        self.again = again

    def forward(self, x):
        h = self.c(self.a(x) + self.b(x))
        return h + self.d(x) + (self.b(h) if self.again else 0)


def inputs_of(model, *batches, **options):
    with Probe(model, **options) as probe:
        for x in batches:
            model(x).square().sum().backward()
    return {name: layer.input_of for name, layer in probe.read().items()}


def copies(model, x, monkeypatch):
    """How many compressed copies the sketched layers of the model make of their inputs."""
    made = []
    whole = CountSketch.compress
    monkeypatch.setattr(CountSketch, "compress", lambda *words: made.append(None) or whole(*words))
    sketch_linears(model, CountSketch(0.25))
    model(x).square().sum().backward()
    return len(made)


def test_readers_of_one_tensor_are_those_that_share_a_copy(monkeypatch):
    """Whether or not they come one after another."""
    x, readers = torch.randn(8, 16), {"a": "a", "b": "a", "c": "c", "d": "a"}
    assert inputs_of(Readers(), x) == readers
    assert copies(Readers(), x, monkeypatch) == len(set(readers.values()))


def test_a_tensor_that_was_written_to_is_read_again():
    """As where batches come in one buffer."""
    x, model = torch.randn(8, 16), Readers()
    with Probe(model) as probe:
        for _ in range(2):
            model(x).square().sum().backward()
            x.mul_(2)
    norms = (x / 4).square().sum(1)
    for name in "abd":
        torch.testing.assert_close(
            probe.read()[name].moments.x_sq.float(), torch.cat([norms, 4 * norms])
        )


def test_in_a_transformer(monkeypatch):
    torch.manual_seed(0)
    model = Transformer(width=16, depth=2, heads=2, length=12)
    tokens = torch.randint(256, (5, 12))
    found = inputs_of(model, tokens)
    for name, first in found.items():
        block, _, kind = name.rpartition(".")
        assert first == (f"{block}.query" if kind in ("key", "value") else name)
    assert copies(model, tokens, monkeypatch) == len(set(found.values())) == 9


def test_over_several_backward_passes_and_under_checkpointing():
    x = torch.randn(8, 16)
    assert inputs_of(Readers(), x, x + 1)["d"] == "a"

    class Checkpointed(Readers):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=False)

    assert inputs_of(Checkpointed(), x)["d"] == "a"


def test_a_layer_that_reads_several_inputs_shares_none_of_them():
    assert inputs_of(Readers(again=True), torch.randn(8, 16))["b"] == "b"


def test_a_frozen_layer_reads_nothing_for_backward():
    model = Readers()
    model.a.weight.requires_grad_(False)
    assert inputs_of(model, torch.randn(8, 16)) == {"b": "b", "c": "c", "d": "b"}


def test_a_column_of_the_table():
    model = Readers()
    with Probe(model, estimators=["uniform-rows"], rates=[0.5]) as probe:
        model(torch.randn(8, 16)).square().sum().backward()
        probe.step()
    rows = probe.rows()
    assert list(rows.columns[-4:]) == ["input_of", "oracle", "biased", "takes_rate"]
    assert dict(zip(rows["layer"], rows["input_of"], strict=True)) == {
        "a": "a",
        "b": "a",
        "c": "c",
        "d": "a",
    }
