"""What two processes do in test_probe_ranks.py: each scenario asserts, on both of them."""

import copy
import json
import traceback
import warnings
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from inspect import signature
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from support.rank_parameters import every_parameter, penalty_and_branch, units_of_their_own
from support.ranks import leave, tell_what_one_tells
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from sketchvar.analysis.noise import TOTAL, noise_scale
from sketchvar.analysis.noise.table import COLUMNS
from sketchvar.analysis.probe import Probe, RankNoise, agreement
from sketchvar.analysis.study import Study, run
from sketchvar.estimators import choices
from sketchvar.estimators.catalog import CATALOG, WITHOUT_RATE

EXAMPLES, LENGTH = 6, 5
UNEVEN = (slice(0, 4), slice(4, 6))
TINY = {"width": 12, "depth": 1, "heads": 2, "length": 6}
STUDY = Study(
    task="stdlib-lm",
    steps=2,
    measure_at=(0, 2),
    estimators=("countsketch", "rounding:2", "centered(countsketch)", "optimal-rows"),
    rates=(0.5,),
    options=tuple(
        {"width": 12, "depth": 1, "heads": 2, "length": 6, "shortest": 2, "batch_size": 7}.items()
    ),
    batches=2,
    metric="progress",
)
QUICK = ["rounding:2", "centered(countsketch)", "centered(rounding:2)", "uniform-rows", "dct"]


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def sharded(model):
    fully_shard(model[0])
    return fully_shard(model)


WRAPS = {"ddp": DistributedDataParallel, "fsdp2": sharded}


def batch_of(step):
    """Examples of LENGTH tokens, of which so many count."""
    g = torch.Generator().manual_seed(step)
    x = torch.randn(EXAMPLES, LENGTH, 8, generator=g, dtype=torch.float64)
    return x + 1, torch.randint(2, LENGTH + 1, (EXAMPLES,), generator=g)


def loss_of(model, x, lengths, whole, ranks):
    """Its part of the mean over the tokens of all ranks, of which DDP takes the mean."""
    counted = torch.arange(LENGTH) < lengths[:, None]
    each = model(x).sin().square().sum(-1) * x.abs().mean(-1)
    return (each * counted).sum() / whole.sum() * ranks


def train(model, part, ranks, steps=2, **options):
    """The rows of some steps, of Adam's."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lengths = [batch_of(step)[1][part] for step in range(steps)]
    if options.pop("weighted", False):
        options["weights"] = lambda *args: lengths[probe.number]
    if options.pop("weighed", False):
        options["metric"] = optimizer
    with Probe(model, run="ranks", **options) as probe:
        for step in range(steps):
            x, whole = batch_of(step)
            loss_of(model, x[part], whole[part], whole, ranks).backward()
            layers = probe.read() if options.get("pairs") else {}
            optimizer.step()
            optimizer.zero_grad()
            probe.step()
    return probe.rows(), layers, probe.coverage()


def compare(wrap, **options):
    """Two ranks tell what one process tells."""
    expected, alone, _ = train(mlp(), slice(None), 1, **options)
    found, layers, coverage = train(WRAPS[wrap](mlp()), UNEVEN[dist.get_rank()], 2, **options)
    assert coverage["measured"].all(), coverage.to_string()
    assert len(expected) and list(found) == COLUMNS
    # a rank knows of its own pass how often a weight was used
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5, atol=1e-15)
    for name in options.get("pairs", ()):
        pairs = (one[name].moments.pair for one in (layers, alone))
        for one, other in zip(*pairs, strict=True):
            torch.testing.assert_close(one, other)
    return found


def all_estimators():
    names = [n for n in CATALOG if not choices(n, 0.5)[0].no_closed_form]
    found = compare("ddp", estimators=names, rates=[0.5])
    assert set(found["estimator"]) >= set(names) & WITHOUT_RATE
    assert (found["variance"].notna()).all()


def errors_weights_and_metric(wrap):
    """Each has a number that is known only where it is asked for."""
    found = compare(wrap, estimators=QUICK, rates=[0.5], exact_errors=True)
    assert found["signal_stderr"].notna().all()
    compare(wrap, estimators=QUICK, rates=[0.5], weighted=True)
    found = compare(wrap, estimators=QUICK, rates=[0.5], weighted=True, weighed=True)
    assert found.loc[found["step"] == 1, ["metric_ratio", "metric_variance"]].notna().all(None)


def pairs():
    compare("ddp", estimators=["gaussian"], rates=[0.5], pairs=["0"])


def fresh_batches():
    def measure(model, part, ranks):
        def loss(model, step):
            x, whole = batch_of(step)
            return loss_of(model, x[part], whole[part], whole, ranks)

        with Probe(model, run="ranks", estimators=QUICK, rates=[0.5]) as probe:
            return probe.measure(loss, range(5, 8))

    found = measure(WRAPS["ddp"](mlp()), UNEVEN[dist.get_rank()], 2)
    pd.testing.assert_frame_equal(found, measure(mlp(), slice(None), 1), rtol=1e-5)


def raises(words, work, kind=agreement.Disagreement):
    try:
        work()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"nobody said {words!r}")


def disagree_about_the_schedule():
    raises(
        f"every: {1} on rank 0, {2} on rank 1",
        lambda: Probe(WRAPS["ddp"](mlp()), every=1 + dist.get_rank()).__enter__(),
    )


def disagree_about_layers():
    model = mlp()
    model[2].weight.requires_grad_(dist.get_rank() == 0)
    raises(
        "layers: [['2', 4, 6]] on rank 0",
        lambda: Probe(model, group=dist.group.WORLD).__enter__(),
    )


def disagree_about_steps(late):
    """One forgets a call of step(): neither hangs, both say so, and training goes on."""
    model, part = WRAPS["ddp"](mlp()), UNEVEN[dist.get_rank()]
    agreement.WAIT = timedelta(seconds=3)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Probe(model, estimators=QUICK, rates=[0.5], every=late) as probe:
            for step in range(3 * late + 1):
                x, whole = batch_of(step)
                loss_of(model, x[part], whole[part], whole, 2).backward()
                model.zero_grad()
                if (step, dist.get_rank()) != (1, 1):
                    probe.step()
    agreement.WAIT = timedelta(minutes=1)
    words = [str(w.message) for w in said if "measures no more" in str(w.message)]
    assert len(words) == 1 and "rank" in words[0] and "step" in words[0], [str(w) for w in said]
    assert set(probe.rows()["step"]) == {0}


def disagree_about_batches():
    def loss(model, step):
        x, whole = batch_of(step)
        return loss_of(model, x[part], whole[part], whole, 2)

    model, part = WRAPS["ddp"](mlp()), UNEVEN[dist.get_rank()]
    with Probe(model, estimators=QUICK, rates=[0.5]) as probe:
        raises(
            "batch: 2 on rank 0, no more on rank 1",
            lambda: probe.measure(loss, range(3 - dist.get_rank())),
        )


def budget():
    """Ranks that find measuring dearer or cheaper measure the same steps."""
    rank, steps = dist.get_rank(), 40
    model, part = WRAPS["ddp"](mlp()), UNEVEN[rank]
    with Probe(model, estimators=["uniform-rows"], rates=[0.5], overhead=0.1) as probe:
        clock = probe.schedule.clock = Clock()
        for step in range(steps):
            clock.now += 1.0 + (1.0 + 2.0 * rank) * probe.attached  # a rank's own seconds
            x, whole = batch_of(step)
            loss_of(model, x[part], whole[part], whole, 2).backward()
            model.zero_grad()
            probe.step()
    measured = [sorted(set(probe.rows()["step"]))] * 2
    dist.all_gather_object(measured, measured[0])
    assert measured[0] == measured[1] and 2 < len(measured[0]) < steps / 2, measured
    assert probe.schedule.period == 30, probe.schedule.period  # of the rank where it costs most


class Clock:
    """Tells the time that it is given."""

    now = 0.0

    def __call__(self):
        return self.now


def form_that_fails():
    """On the rank that computes it, and is told on all."""
    from sketchvar.estimators import StochasticRounding

    def fail(self, m):
        raise ValueError("no such form")

    before, StochasticRounding.variance = StochasticRounding.variance, fail
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(WRAPS["ddp"](mlp()), UNEVEN[dist.get_rank()], 2, estimators=["rounding:2"])
    StochasticRounding.variance = before
    assert any("rank 0 could not compute" in str(w.message) for w in said), said


def tensor_parallel():
    """Its products are not measured, and reported; a layer beside them, which every rank runs on
    all examples, is.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    x, whole = torch.randn(5, 4), copy.deepcopy(model)
    mesh = init_device_mesh("cpu", (2,))
    parallelize_module(model, mesh, {"0": ColwiseParallel(), "1": RowwiseParallel()})
    found = []
    for each in (model, whole):
        with Probe(each, estimators=QUICK, rates=[0.5]) as probe:
            each(x).square().mean().backward()
            probe.step()
        found.append(probe.rows().query("layer == '3'").drop(columns="input_of"))
    pd.testing.assert_frame_equal(*(rows.reset_index(drop=True) for rows in found), rtol=1e-5)
    with Probe(model) as probe:
        model(x).square().mean().backward()
        assert set(probe.read()) == {"3"}
    table = probe.coverage().set_index("parameter")
    assert all("tensor parallelism" in each for each in table["reason"][:4]), table.to_string()
    assert list(table["measured"]) == [False] * 4 + [True] * 2


def noise_by_ranks():
    """From the gradients of two ranks, each as it was before it was averaged; under no_sync it is
    that of all passes.
    """
    torch.manual_seed(1)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)))
    names = [name for name, _ in model.module.named_parameters()]
    with RankNoise(model) as noise:
        for step in range(3):
            g = torch.Generator().manual_seed(2 * step + dist.get_rank())
            x = torch.randn(3, 5, generator=g)
            alone = copy.deepcopy(model.module)
            alone(x).square().mean().backward()
            for passes in (1, 2):
                for number, part in enumerate((x,) * passes):
                    with model.no_sync() if number < passes - 1 else nullcontext():
                        (model(part).square().mean() / passes).backward()
                model.zero_grad()
                noise.step(examples=len(x))
            grads = [p.grad for p in alone.parameters()]
            means = [g.clone() for g in grads]
            for g in means:
                dist.all_reduce(g)
                g /= 2
            pairs = zip(grads, means, strict=True)
            apart = torch.stack([(g - m).square().sum() for g, m in pairs])
            dist.all_reduce(apart)  # over W (W - 1)
            rows = noise.rows().query("step >= @step * 2")
            for _, part in rows.groupby("step"):
                expected = apart.double().numpy() / 2
                np.testing.assert_allclose(part["minibatch_example"], expected, rtol=1e-4)
                C = [float(m.square().sum()) for m in means]
                np.testing.assert_allclose(part["grad_sq"], C, rtol=1e-4)
                assert list(part["layer"]) == names and set(part["examples"]) == {6}
    table = noise_scale(noise.rows())
    assert (table.loc[table["layer"] == TOTAL, "noise"] > 0).sum() == 6
    with RankNoise(model) as noise, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            model(x).square().mean().backward()
        noise.step(examples=3)
    assert "no_sync" in str(said[-1].message) and noise.rows().empty
    raises("got Sequential", lambda: RankNoise(model.module), TypeError)


def study(folder):
    """Training and measuring of all processes go to one folder, which one process would write."""
    run(STUDY, folder)
    dist.barrier()
    rows = pd.read_parquet(folder / "rows.parquet")
    assert set(rows["step"]) == {0, 2} and json.loads((folder / "run.json").read_text())["finished"]
    dist.barrier()  # or the first writes it again while the other reads
    run(STUDY, folder, resume=True)
    raises("another run", lambda: run(STUDY, folder), ValueError)
    raises(
        "has none for some",
        lambda: run(replace(STUDY, options=(("batch_size", 1),)), folder / "b"),
        ValueError,
    )


SCENARIOS = {
    "one process: ddp": lambda folder: tell_what_one_tells("ddp", folder / "ddp"),
    "one process: fsdp2": lambda folder: tell_what_one_tells("fsdp2", folder / "fsdp2"),
    "every parameter: ddp": lambda folder: every_parameter("ddp", folder),
    "every parameter: fsdp2": lambda folder: every_parameter("fsdp2", folder),
    "penalty and branch": penalty_and_branch,
    "units of their own": units_of_their_own,
    "all estimators": all_estimators,
    "errors, weights, metric: ddp": lambda: errors_weights_and_metric("ddp"),
    "errors, weights, metric: fsdp2": lambda: errors_weights_and_metric("fsdp2"),
    "pairs": pairs,
    "fresh batches": fresh_batches,
    "disagree about the schedule": disagree_about_the_schedule,
    "disagree about layers": disagree_about_layers,
    "disagree about steps, all measured": lambda: disagree_about_steps(1),
    "disagree about steps, some measured": lambda: disagree_about_steps(2),
    "budget": budget,
    "disagree about batches": disagree_about_batches,
    "form that fails": form_that_fails,
    "noise by ranks": noise_by_ranks,
    "tensor parallel": tensor_parallel,
    "study": lambda folder: study(folder / "study"),
}


def work(rank, folder):
    """Run all scenarios; what went wrong in each is in a file of this rank."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    agreement.WAIT = timedelta(minutes=1)
    told = {}
    for name, scenario in SCENARIOS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scenario(*[Path(folder)] * len(signature(scenario).parameters))
            told[name] = ""
        except Exception:
            told[name] = traceback.format_exc()
    torch.save(told, f"{folder}/{rank}.pt")
    leave()
