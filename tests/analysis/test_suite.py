"""The GPU suite at toy size on a CPU: every part writes its rows, stops in time, goes on, and says
what it left out.
"""

from dataclasses import replace

import pytest
import torch

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.bench import kernels as bench_kernels
from sketchvar.analysis.bench import layer as bench_layer
from sketchvar.analysis.bench.kernel_errors import run_plain
from sketchvar.analysis.gpu import scale, suite
from sketchvar.analysis.gpu.parts import PARTS
from sketchvar.analysis.gpu.run import Run
from sketchvar.analysis.gpu.scale import Scale
from sketchvar.estimators import kernels as door


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite")
    words = ["gpu-suite", "--tiny", "--device", "cpu", "--minutes", "5", "--out", str(path)]
    assert main(words) == 0
    return path


def test_every_part_is_done(out):
    written = records.read_json(out / "suite.json")
    assert list(written["parts"]) == list(PARTS)
    assert {
        part: (r["state"], r["skipped"]) for part, r in written["parts"].items()
    } == dict.fromkeys(PARTS, ("done", []))
    assert all(r["rows"] > 0 for r in written["parts"].values())
    assert "which says nothing about any GPU" in (out / "README.md").read_text()
    assert "--tiny --minutes 5" in written["command"]


def test_rows(out):
    layers = records.read_rows(out / "layers.parquet")
    assert set(layers["estimator"]) == set(scale.OF_LAYERS)
    counted = layers[layers["estimator"].isin(["countsketch", "gaussian", "rounding:4"])]
    assert counted["held"].equals(counted["kept"])  # what autograd holds is what kept_bytes says
    kernels = records.read_rows(out / "kernels.parquet")
    assert (kernels["of_limit"] - kernels["limit"] / kernels["seconds"]).abs().max() == 0
    assert {"copy", "gemm", *bench_kernels.SKETCHES, "hadamard", "rounding"} <= set(
        kernels["kernel"]
    )
    memory = records.read_rows(out / "memory.parquet")
    assert (memory["seconds"] > 0).all() and set(memory["checkpointing"]) == {False, True}
    variance = records.read_rows(out / "variance" / "rows.parquet")
    assert set(variance["estimator"]) == set(scale.WITH_CLOSED_FORM) and set(variance["step"]) == {
        0,
        2,
    }
    assert not (out / "variance" / "checkpoint.pt").exists()
    assert (records.read_rows(out / "redraw" / "truth.parquet")["redrawn"] > 0).all()
    trained = records.read_rows(next((out / "finetune" / "cells").iterdir()))
    assert set(trained["step"]) == {0, 2} and (trained["peak"] > 0).all()
    assert (out / "throughput.png").exists() and (out / "kernels.png").exists()


def test_parts_that_are_done_are_not_run_again(out, monkeypatch):
    def never(run):
        raise AssertionError

    monkeypatch.setattr(suite, "PARTS", {part: (1, never) for part in PARTS})
    results = suite.run_suite(scale.TINY, out, "cpu", 1, tuple(PARTS), str)
    assert [r.state for r in results] == ["done"] * len(PARTS)


def test_time_runs_out_and_rows_are_kept(tmp_path):
    results = suite.run_suite(scale.TINY, tmp_path, "cpu", 1e-9, ("layers", "probe"), str)
    assert [(r.part, r.rows, r.state) for r in results] == [
        ("layers", 0, "out of time"),
        ("probe", 0, "out of time"),
    ]
    results = suite.run_suite(scale.TINY, tmp_path, "cpu", 5, ("probe",), str)
    assert [(r.part, r.state) for r in results] == [("layers", "out of time"), ("probe", "done")]


def test_a_study_out_of_time_keeps_its_rows_and_goes_on(tmp_path, monkeypatch):
    few = replace(scale.TINY, estimators=("uniform-rows",))
    calls = iter(
        [None, None, TimeoutError("out of time")]
    )  # before the part, after step 0, after step 1

    def check(self, *_):
        if error := next(calls, None):
            raise error

    monkeypatch.setattr(Run, "check", check)
    rows, state = suite.carry_out("variance", Run(few, tmp_path, "cpu", 0.0))
    assert state == "out of time" and set(rows["step"]) == {0}
    rows, state = suite.carry_out("variance", Run(few, tmp_path, "cpu", 0.0))
    assert state == "done" and set(rows["step"]) == {0, 2}


def test_what_does_not_fit_is_left_out(tmp_path, monkeypatch):
    def fails(names, *_, **__):
        raise torch.OutOfMemoryError("too large")
        yield

    monkeypatch.setattr(bench_layer, "time_layers", fails)
    run = Run(scale.TINY, tmp_path, "cpu", float("inf"))
    rows, state = suite.carry_out("layers", run)
    assert state == "done" and rows.empty and len(run.skipped) == len(scale.OF_LAYERS)
    assert "countsketch, (64, 16, 24), torch.float32: too large" in run.skipped


def test_an_error_of_one_part_is_written_down(tmp_path, monkeypatch):
    def fails(run):
        raise ImportError("no transformers")
        yield

    monkeypatch.setitem(PARTS, "memory", (1, fails))
    (result,) = suite.run_suite(scale.TINY, tmp_path, "cpu", 1, ("memory",), str)
    assert result.state == "ImportError: no transformers"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--device", "cpu"], "gpu-suite needs a CUDA device"),
        (["--tiny", "--minutes", "0"], "--minutes must be above 0, got 0"),
        (["--tiny", "--parts", "kernel"], "unknown part 'kernel'; did you mean 'kernels'?"),
    ],
)
def test_bad_input_in_one_line(words, error, capsys):
    assert main(["gpu-suite", *words]) == 2
    assert error in capsys.readouterr().err


def test_kernels_are_switched_off_for_the_plain_path(monkeypatch):
    monkeypatch.setattr(door, "load_triton", lambda: pytest)
    monkeypatch.setenv("SKETCHVAR_KERNELS", "on")
    assert door.find_triton(torch.device("cuda")) is pytest
    assert run_plain(lambda: door.find_triton(torch.device("cuda"))) is None
    assert door.find_triton(torch.device("cuda")) is pytest


def test_full_size_is_what_was_asked_for():
    full: Scale = scale.FULL
    assert set(full.estimators) == set(scale.WITH_CLOSED_FORM) and full.rates == (
        0.5,
        0.2,
        0.1,
        0.05,
    )
    assert (
        (16384, 4096, 4096) in full.shapes
        and torch.bfloat16 in full.dtypes
        and len(full.batches) == 8
    )
    from sketchvar.analysis.tasks import find_task

    with torch.device("meta"):
        model = find_task(full.task).model()
    assert 123.5e6 < sum(p.numel() for p in model.parameters()) < 124.5e6
