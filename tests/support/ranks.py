"""Two ranks tell what one process tells of the whole batch: scenarios of test_probe_ranks.py."""

import os
import sys
import warnings
from contextlib import nullcontext

import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from sketchvar.analysis.probe import Probe, observer
from sketchvar.analysis.tasks.stdlib_lm import Transformer

B, STEPS, ACCUMULATED = 6, 3, 3


def leave():
    """End a rank's process without the interpreter's own end, at which one aborted once, after all
    results were saved ("terminate called without an active exception"): likely a thread of DDP or
    gloo that asked for the GIL and was unwound through C++.
    """
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def transformer(tied):
    torch.manual_seed(0)
    model = Transformer(
        width=16, depth=2, heads=2, length=5
    ).double()  # the attention's own gradient is a difference
    if tied:
        model.head.weight = model.bytes.weight
    return model


def sharded(model):
    for block in model.blocks:
        fully_shard(block)
    return fully_shard(model)


def train(model, of_rank, passes, synchronised, **options):
    """What the measured steps told of this rank's part of the batches, in so many passes."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    with Probe(
        model, estimators=["uniform-rows"], rates=[0.5], every=2, run="ranks", **options
    ) as probe:
        for step in range(STEPS):
            tokens = torch.randint(256, (B, 5), generator=torch.Generator().manual_seed(step))[
                of_rank
            ]
            for i, part in enumerate(tokens.chunk(passes)):
                wait = not synchronised and i < passes - 1
                if hasattr(model, "set_requires_gradient_sync"):
                    model.set_requires_gradient_sync(not wait)
                with (
                    model.no_sync()
                    if wait and isinstance(model, DistributedDataParallel)
                    else nullcontext()
                ):
                    (model(part).logsumexp(-1).square().mean() / passes).backward()
            optimizer.step()
            optimizer.zero_grad()
            if probe.attached:
                found.append({name: facts(layer) for name, layer in probe.read().items()})
            probe.step()
    coverage = probe.coverage()
    assert coverage["measured"].all(), coverage.to_string()
    return found, probe.rows()


def facts(layer):
    m, count = layer.moments, torch.tensor([layer.examples, layer.rows])
    return {"C": m.C, "x_sq": m.x_sq, "y_sq": m.y_sq, "g_s": layer.example_sq, "n": count}


def same(found, expected):
    """To 1e-5 of each vector's norm, and the rows, but for how often a weight was used, to 1e-5."""
    for one, other in zip(found[0], expected[0], strict=True):
        for name in other:
            for key, wanted in other[name].items():
                error = torch.linalg.vector_norm((one[name][key] - wanted).double())
                assert error <= 1e-5 * torch.linalg.vector_norm(wanted.double()), (
                    name,
                    key,
                    one[name][key],
                    wanted,
                )
    rows = (one[1].drop(columns="uses") for one in (found, expected))
    pd.testing.assert_frame_equal(*rows, rtol=1e-5)


def tell_what_one_tells(kind, out):
    """Tied or not, in both ways in which norms by example are had, in one pass or in several."""
    wrap, rank = {"ddp": DistributedDataParallel, "fsdp2": sharded}[kind], dist.get_rank()
    mine = slice(rank * B // 2, (rank + 1) * B // 2)
    before = observer.pays
    for tied in (False, True):
        for fused in (False, True):
            observer.pays = lambda *sizes, fused=fused: fused
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                expected = train(transformer(tied), slice(None), 1, True)
            assert any("this model is not wrapped" in str(warning.message) for warning in said)
            for passes, synchronised in ((1, True), (ACCUMULATED, True), (ACCUMULATED, False)):
                options = {"out": out} if (tied, fused, passes) == (False, False, 1) else {}
                found = train(wrap(transformer(tied)), mine, passes, synchronised, **options)
                same(found, expected)
                if options:
                    dist.barrier()
                    pd.testing.assert_frame_equal(pd.read_parquet(out), expected[1], rtol=1e-5)
    observer.pays = before
    one_rank_idle(wrap, rank)
    penalty(wrap, rank)


def penalty(wrap, rank):
    """A weight that the loss reads too is noticed, and from the next step on its product's own part
    is measured: that of the mean over ranks.
    """

    class Penalized(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.layer, self.factor = nn.Linear(5, 3), factor

        def forward(self, x):
            return self.layer(x).square().sum() + self.factor * self.layer.weight.square().sum()

    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(rank))
    for factor in (0.0, 0.5):
        torch.manual_seed(0)
        plain = Penalized(0.0)
        (own,) = torch.autograd.grad(plain(x), [plain.layer.weight])
        dist.all_reduce(own)
        torch.manual_seed(0)
        model = Penalized(factor)
        model = wrap(model) if wrap is DistributedDataParallel else fully_shard(model)
        with Probe(model) as probe, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for step in range(2):
                model(x).backward()
                found = probe.read()
                told = probe.coverage().iloc[0]
                if factor and step == 0:
                    assert not found and "not its product's gradient alone" in told["reason"]
                else:
                    C = float(found["layer"].moments.C)
                    assert abs(C / float((own / 2).square().sum()) - 1) < 1e-5, (factor, C)
                    assert ("own part is measured" in told["note"]) == bool(factor)
                model.zero_grad()
                probe.step()


def one_rank_idle(wrap, rank):
    """A layer that only one rank uses is reported, not mismeasured."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x) + (
                self.b(x) if rank else 0 * self.b.weight.sum() + 0 * self.b.bias.sum()
            )

    torch.manual_seed(0)
    model = Branches()
    model = (
        DistributedDataParallel(model) if wrap is DistributedDataParallel else fully_shard(model)
    )
    with Probe(model) as probe, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model(torch.randn(3, 4)).square().sum().backward()
        assert set(probe.read()) == {"a"}
    assert (
        probe.coverage().set_index("parameter")["reason"]["b.weight"]
        == "it was measured on 1 of 2 ranks"
    )
