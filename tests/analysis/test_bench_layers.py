"""The benchmarks of sketched layers give tables and figures, and their counts of memory are
right.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from sketchvar.analysis import meter, records
from sketchvar.analysis.bench import layer as bench_layer
from sketchvar.analysis.bench import memory as bench_memory
from sketchvar.analysis.bench import probe as bench_probe
from sketchvar.analysis.bench import step as bench_step
from sketchvar.analysis.bench.figures import layer_times, peak_memory
from sketchvar.analysis.bench.traffic import count_traffic
from sketchvar.analysis.loop import checkpoint_blocks, start
from sketchvar.analysis.report.bench import read_layer, read_memory, read_step
from sketchvar.analysis.tasks import find_task
from sketchvar.estimators import CountSketch, SketchedLinear, StochasticRounding, sketch_linears
from sketchvar.estimators.kernels.native import is_on


def test_bench_layer():
    *_, rows = bench_layer.time_layers(
        ("uniform-rows", "countsketch"), (0.5, 0.1), ((64, 16, 8), (32, 8, 16)), repeats=3
    )
    assert list(rows.columns) == bench_layer.COLUMNS and len(rows) == 2 * (4 + 2)
    train = rows[rows["mode"] == "train"]
    assert (train.low <= train.ratio).all() and (train.ratio <= train.high).all()
    assert set(train.theory) == {5 / 6, 4.2 / 6}
    assert (train.allocated > 1).all() and (train.peak > 0).all()
    assert len(layer_times(rows).axes) == 2


def test_bench_layer_of_a_convolution(tmp_path):
    *_, rows = bench_layer.time_layers(("rounding:2",), (1.0,), ((2, 8, 6, 4, 3),), repeats=2)
    row = rows.iloc[0]
    assert (row["rows"], row.p, row.q, row.kernel) == (72, 72, 4, 3)
    assert row.numbers == 1 + 1 / 72**2  # one for each number of X, and the seed
    records.write_rows(tmp_path / "layer.parquet", rows)
    times, profiles = read_layer(tmp_path).tables
    assert "72 × 72 → 4, convolution" in times.rows[0] and len(profiles.rows) == 1


@pytest.mark.parametrize("native", ["on", "off"])
def test_traffic_is_what_is_read_and_written(native, monkeypatch):
    """By hand, in bytes; with C++ and without as many random numbers."""
    monkeypatch.setenv("SKETCHVAR_NATIVE", native)
    x = torch.randn(64, 32)
    copied = count_traffic(lambda: x.clone().add_(1))
    assert (copied.bytes, copied.numbers) == (4 * x.nbytes, 0)
    assert count_traffic(lambda: x @ x.T).bytes == 0  # products are counted by themselves
    assert count_traffic(lambda: x[:5]).bytes == 0  # nothing is moved
    assert count_traffic(lambda: x[torch.arange(4)]).bytes == 2 * 4 * 32 * 4 + 4 * 8
    assert count_traffic(lambda: torch.randn(7, 3)).numbers == 21
    rounded = count_traffic(lambda: StochasticRounding(2).compress(x, 1))
    assert rounded.numbers == x.numel()
    if is_on():
        kept = StochasticRounding(2).kept_bytes(64, 32, x.dtype) - 8
        assert rounded.bytes == x.nbytes + kept
    else:
        assert rounded.bytes > 4 * x.nbytes  # must fail: one pass


def test_bench_step(tmp_path):
    sizes = {"width": 16, "depth": 1, "heads": 2, "length": 16, "batch_size": 4}
    task = find_task("stdlib-lm", tuple(sizes.items()))
    told = []
    *_, rows = bench_step.time_steps(
        "stdlib-lm", task, ("rounding:2", "exact"), (0.5,), 2,
        progress=lambda *numbers: told.append(numbers),
    )  # fmt: skip
    assert list(rows.columns) == bench_step.COLUMNS and told == [(1, 2), (2, 2)]
    assert (rows.low <= rows.ratio).all() and (rows.ratio <= rows.high).all()
    rounded, exact = rows.to_dict("records")
    assert 0 < rounded["kept"] < rounded["saved"] < rounded["plain_saved"] == exact["saved"]
    assert rounded["peak"] < rounded["plain_peak"] and exact["kept"] == 0  # must fail: exact spares
    records.write_rows(tmp_path / "step.parquet", rows)
    assert "rounding:2" in str(read_step(tmp_path).tables[0].rows)


def test_bench_memory(tmp_path):
    *_, before, rows = bench_memory.measure_memory(
        ("countsketch",), (0.1,), layers=1, batches=(2, 3), length=8, timed=1
    )
    assert list(rows.columns) == bench_memory.COLUMNS and len(rows) == 2 * 3 * 2
    assert rows.ratio[0] == rows.ratio[6] == 1 and rows.saved[1] < rows.saved[0]
    assert (rows.peak > rows.resident).all()
    assert peak_memory(rows).axes
    # all ways of a batch size are timed together, when their memory is known
    assert before.seconds.isna().tolist() == 6 * [False] + 6 * [True]
    assert (rows.seconds > 0).all()
    assert rows.drop(columns="seconds").equals(before.drop(columns="seconds"))
    records.write_rows(tmp_path / "memory.parquet", rows)
    times = [row["time_ratio"] for row in read_memory(tmp_path).tables[0].rows]
    plain = rows.seconds[[0] * 6 + [6] * 6].to_numpy()
    assert times == pytest.approx(list(rows.seconds / plain))


def test_the_shape_of_gpt2():
    with torch.device("meta"):
        model = bench_memory.SHAPES["gpt2-small"](1, 12, 128).model()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(124e6, rel=0.01)
    with pytest.raises(ValueError, match=r"unknown shape 'bert'; .*roberta-base, gpt2-small"):
        next(bench_memory.measure_memory(shape="bert"))


def test_checkpointing_holds_less_the_more_is_computed_again():
    sizes = {"width": 32, "depth": 6, "heads": 4, "length": 64, "batch_size": 16}
    task, peaks = find_task("stdlib-lm", tuple(sizes.items())), []
    for checkpointing, selective in bench_memory.WAYS:
        training = start(task, 1, torch.device("cpu"), seed=0)
        if checkpointing:
            checkpoint_blocks(training.model, selective)
        peaks.append(meter.peak(partial(training.advance, 0, training.batch(0)), "cpu"))
    plain, selective, whole = peaks
    assert whole < 0.8 * selective < 0.8 * 0.8 * plain


@pytest.mark.parametrize("selective", [False, True])
def test_checkpointing_changes_no_gradient(selective):
    """Of layers that train with a sketch either: the draw of a block is the same again."""
    sizes = {"width": 16, "depth": 2, "heads": 2, "length": 16, "batch_size": 4}
    task, found = find_task("stdlib-lm", tuple(sizes.items())), []
    for again in (False, True):
        training = start(task, 1, torch.device("cpu"), seed=0)
        sketch_linears(training.model, CountSketch(0.25))
        if again:
            checkpoint_blocks(training.model, selective)
        training.advance(0, training.batch(0))
        found.append([p.detach().clone() for p in training.model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_account_of_saved_bytes_counts_each_memory_once_and_no_parameter():
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    x = torch.randn(32, 8)
    held = bench_memory.account_for(model(x).sum())
    assert sum(held.values()) == x.nbytes + 32 * 16 * 4  # tanh's output is the second layer's input
    sketch_linears(model, CountSketch(0.25))
    held = bench_memory.account_for(model(x).sum())
    kept = sum(CountSketch(0.25).kept_bytes(32, p, torch.float32) for p in (8, 16))
    assert held == {"Tanh": 32 * 16 * 4, "Product": kept}


def test_peak_sees_what_is_allocated_inside_operators():
    x = torch.randn(256, 256)
    assert 2 * x.nbytes <= meter.peak(lambda: x @ x + 1, "cpu") < 2.01 * x.nbytes


def test_all_that_is_asked_for_counts_though_little_is_held_at_once():
    x = torch.randn(256, 256)
    assert 4 * x.nbytes <= meter.allocated(lambda: x.add(1).add(1).add(1).add(1), "cpu")
    assert meter.peak(lambda: x.add(1).add(1).add(1).add(1), "cpu") < 2.01 * x.nbytes


def test_rounding_never_restores_the_whole_input():
    """Backward holds the input's gradient and less than the input beside it."""
    layer = SketchedLinear(64, 64, StochasticRounding(2))
    x, y = torch.randn(8192, 64, requires_grad=True), torch.randn(8192, 64)
    backward = partial(layer(x).backward, y)
    assert x.nbytes <= meter.peak(backward, "cpu") < 1.5 * x.nbytes


def test_bench_probe(monkeypatch):
    small = replace(bench_probe.DigitsMLP(), width=16, batch_size=10)
    monkeypatch.setattr(bench_probe, "MODELS", {"a": small, "b": small})
    told, threads = [], torch.get_num_threads()
    *_, rows = bench_probe.time_probes(3, lambda *numbers: told.append(numbers))
    assert list(rows.columns) == bench_probe.COLUMNS and len(rows) == 2 * 4
    assert told == [(i, 6) for i in range(1, 7)]
    assert (rows.low <= rows.time).all() and (rows.time <= rows.high).all()
    assert (rows.memory > 0.9).all() and torch.get_num_threads() == threads
