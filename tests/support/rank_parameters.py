"""Two ranks tell of every parameter what one process tells: a scenario of test_probe_ranks.py."""

import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import weight_norm

from sketchvar.analysis.probe import Probe

LENGTH, WIDTH = 5, 8
UNEVEN = (slice(0, 4), slice(4, 6))


class Experts(nn.Module):
    """Two matrices in one parameter, each of which meets the rows that a router sends to it."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(WIDTH, 2, bias=False)
        self.both = nn.Parameter(torch.randn(2, WIDTH, WIDTH) / 3)

    def forward(self, h):
        rows = h.reshape(-1, WIDTH)
        gates = self.router(rows).softmax(-1)
        out = torch.zeros_like(rows)
        for e in range(2):
            at = (gates.argmax(-1) == e).nonzero()[:, 0]
            out = out.index_add(0, at, F.linear(rows[at], self.both[e]) * gates[at, e, None])
        return out.view_as(h)


class Everything(nn.Module):
    """A parameter of each sort: read as a product, a sum, a lookup, a copy, by replay, routed."""

    def __init__(self, tied):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(11, WIDTH, padding_idx=0), nn.Embedding(9, WIDTH)
        self.norm, self.scale = nn.LayerNorm(WIDTH), nn.Parameter(torch.linspace(0.5, 2, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mix = nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=2)
        self.channels, self.experts = nn.GroupNorm(2, WIDTH), Experts()
        self.head = nn.Linear(WIDTH, 11)
        self.double()  # errors are those of small differences
        if tied:
            self.head.weight = self.words.weight

    def forward(self, words):
        h = self.words(words) + self.places(torch.arange(words.shape[1]))
        h = h + self.attention(*[self.norm(h)] * 3, need_weights=False)[0]
        h = self.channels(self.mix(h.mT)).mT * self.scale
        return self.head(h + self.experts(h))


def sharded(model):
    for part in (model.experts, model.norm, model.mix):  # parameters of each come and go
        fully_shard(part)
    return fully_shard(model)


WRAPS = {"ddp": DistributedDataParallel, "fsdp2": sharded}


def train(model, part, ranks, passes=1, weighted=False, steps=3, **options):
    """A probe that has measured some steps of training on a part of each batch."""
    counts = torch.arange(1.0, 7)[part]
    options |= {"weights": lambda *args: counts} if weighted else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Probe(model, estimators=["uniform-rows"], rates=[0.5], run="ranks", **options) as probe:
        for step in range(steps):
            batch = torch.randint(11, (6, LENGTH), generator=torch.Generator().manual_seed(step))
            for words in batch[part].chunk(passes):
                (model(words).logsumexp(-1).square().sum() * ranks / 30).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            probe.step()
    return probe


def compare(wrap, tied, parts=UNEVEN, **options):
    """Two ranks tell what one process tells, and write it once."""
    alone = train(Everything(tied), slice(None), 1, **{**options, "out": None})
    found = train(WRAPS[wrap](Everything(tied)), parts[dist.get_rank()], 2, **options)
    coverage = found.coverage()
    assert coverage["measured"].all(), coverage.to_string()
    assert abs(coverage["share"].sum() - 1) < 1e-9
    expected = alone.noise()
    assert set(expected["step"]) == {0, 1, 2} and set(expected["examples"]) == {6}
    assert len(expected) > 20 * 3
    dist.barrier()  # the first writes
    pd.testing.assert_frame_equal(found.noise(), expected, rtol=1e-5, atol=1e-9)
    if "passes" not in options:  # each use draws for itself, of which ranks do not know
        rows = (probe.rows().drop(columns="uses") for probe in (found, alone))
        pd.testing.assert_frame_equal(*rows, rtol=1e-5, atol=1e-9)


def every_parameter(wrap, folder):
    """Ranks have different numbers of examples, or one of them none."""
    for tied in (False, True):
        compare(wrap, tied)
        compare(wrap, tied, exact_errors=True)
    compare(wrap, False, passes=2)
    compare(wrap, False, weighted=True)
    compare(wrap, False, parts=(slice(0, 6), slice(6, 6)))
    compare(wrap, False, out=folder / f"parameters-{wrap}")


def penalty_and_branch():
    """A penalty is noticed, and left out; a parameter that one rank uses alone is reported."""

    class Norms(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.out = nn.LayerNorm(4), nn.LayerNorm(4), nn.Linear(4, 2)

        def forward(self, x, both):
            return self.out(self.a(x) + (self.b(x) if both else x))

    rank, x = dist.get_rank(), torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    expected = []
    for penalty in (0.0, 3.0):
        model = DistributedDataParallel(Norms(), find_unused_parameters=True)
        with Probe(model) as probe:
            loss = model(x[2 * rank : 2 * rank + 2], rank == 0).square().sum()
            (loss + penalty * model.module.a.weight.square().sum()).backward()
            probe.read()
        found, table = probe.gradients, probe.coverage().set_index("parameter")
        assert ("is measured" in table["note"]["a.weight"]) == bool(penalty), table.to_string()
        assert found["b.bias"] == "it was measured on 1 of 2 ranks", found["b.bias"]
        assert not table["note"]["a.bias"] and table["measured"]["a.bias"]
        expected.append([found["a.weight"].C, *found["a.weight"].example_sq])
    torch.testing.assert_close(*map(torch.stack, expected), rtol=1e-5, atol=0.0)


def units_of_their_own():
    """A replayed convolution, and a layer that is read with its weight, tell what they tell where
    FSDP does not take their parameters away before their gradient comes.
    """
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).double()
    tables = []
    for apart in (True, False):
        torch.manual_seed(0)
        conv = weight_norm(nn.Conv1d(1, 1, 3, padding=1))
        parts = nn.Unflatten(1, (1, 5)), conv, nn.Flatten(), nn.Linear(5, 5), nn.BatchNorm1d(5)
        model = nn.Sequential(*parts).double()
        for part in (model[1], model[3]) if apart else ():
            fully_shard(part)
        fully_shard(model)
        with Probe(model) as probe:
            model(x[4 * dist.get_rank() :][:4]).sin().square().mean().backward()
            probe.step()
        coverage = probe.coverage()
        assert coverage["measured"].all(), coverage.to_string()
        tables.append(probe.noise())
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)
