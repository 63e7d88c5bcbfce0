"""Sweeps: a file per finished run, the same table after any number of kills, and failures that can
be tried again.
"""

import errno
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.small_sweep import GRID, WORDS, assert_same

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.sweep import run as sweeping
from sketchvar.analysis.sweep.cell import train
from sketchvar.analysis.sweep.grid import Grid
from sketchvar.analysis.sweep.run import Sweep, Workers, sweep


@pytest.fixture(scope="module")
def cells():
    return GRID.cells(pd.DataFrame({"same_memory_batch": [20]}))


@pytest.fixture(scope="module")
def whole(cells, tmp_path_factory):
    return sweep(cells, Sweep(tmp_path_factory.mktemp("whole")))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.slow
def test_killed_ten_times_the_finished_table_is_that_of_an_uninterrupted_sweep(
    cells, whole, tmp_path
):
    draw, killed, done = random.Random(0), 0, set()
    order = list(cells)
    start = time.perf_counter()
    train(cells[2])
    typical = time.perf_counter() - start
    while killed < 10:
        draw.shuffle(order)  # in any order
        process = multiprocessing.get_context("fork").Process(
            target=sweep, args=(order, Sweep(tmp_path))
        )
        process.start()
        process.join(draw.uniform(0, 3 * typical))
        if process.exitcode == 0:  # it was faster than all kills
            for file in (tmp_path / "cells").iterdir():
                file.unlink()
            continue
        process.kill()
        process.join()
        assert process.exitcode == -9
        killed += 1
        now = {file.name for file in (tmp_path / "cells").glob("*.parquet")}
        assert done <= now or not now
        done = now
    assert_same(sweep(cells, Sweep(tmp_path), Workers(2)), whole)
    assert not list((tmp_path / "failed").iterdir())


def test_what_is_finished_is_not_trained_again(cells, whole, tmp_path, monkeypatch):
    some = cells[:3]
    sweep(some, Sweep(tmp_path))
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}
    trained = []
    monkeypatch.setattr(sweeping, "train", lambda cell: trained.append(cell) or train(cell))
    rows = sweep(cells[:5], Sweep(tmp_path))
    assert trained == cells[3:5]
    assert all(file.stat().st_mtime_ns == then for file, then in before.items())
    assert_same(rows, whole[whole["cell"].isin([c.name for c in cells[:5]])].reset_index(drop=True))


def test_a_failed_run_is_listed_and_tried_again_only_when_asked(cells, tmp_path, monkeypatch):
    folder, bad = Sweep(tmp_path), cells[1].name
    monkeypatch.setattr(sweeping, "train", lambda cell: 1 / 0 if cell.name == bad else train(cell))
    rows = sweep(cells[:3], folder)
    assert set(rows["cell"]) == {cells[0].name, cells[2].name}
    assert folder.errors(cells) == {bad: "ZeroDivisionError: division by zero"}
    assert "1 / 0" in records.read_json(folder.error_of(cells[1]))["traceback"]
    monkeypatch.undo()
    assert bad not in set(sweep(cells[:3], folder)["cell"])
    assert bad in set(sweep(cells[:3], folder, retry=True)["cell"])
    assert folder.errors(cells) == {}


def test_a_full_disk_loses_nothing_that_is_finished(cells, whole, tmp_path, monkeypatch):
    write = pq.write_table

    def full(rows, path, **options):
        if rows["cell"][0].as_py() == cells[1].name:
            path.write_bytes(b"PAR1 and no more")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(rows, path, **options)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(
        ValueError,
        match=r"cannot write .* \(No space left on device\); free some space .* are kept",
    ):
        sweep(cells[:3], Sweep(tmp_path))
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == [
        f"{cells[0].name}.parquet"
    ]
    monkeypatch.undo()
    rows = sweep(cells[:3], Sweep(tmp_path))
    assert_same(rows, whole[whole["cell"].isin([c.name for c in cells[:3]])].reset_index(drop=True))


def test_a_file_cut_short_is_named_before_anything_is_trained(cells, tmp_path, monkeypatch):
    folder = Sweep(tmp_path)
    sweep(cells[:1], folder)
    path = folder.rows_of(cells[0])
    path.write_bytes(path.read_bytes()[:-50])
    monkeypatch.setattr(sweeping, "train", lambda cell: pytest.fail("trained"))
    with pytest.raises(
        ValueError, match=r"is not a readable Parquet file .*; remove it or restore a copy"
    ):
        sweep(cells[:2], folder)


def test_a_folder_that_cannot_be_written_to(cells, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*choose another --out"):
        sweep(cells[:1], Sweep(tmp_path / "file" / "x"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"backend": "dask"}, r"unknown backend 'dask'; known are processes, ray"),
        ({"jobs": 0}, r"--jobs must be 1 or more, got 0"),
        ({"restarts": -1}, r"--restarts must be 0 or more, got -1"),
        ({"gpus": 1}, r"--gpus is for --backend ray"),
        ({"cpus": -1, "backend": "ray"}, r"--cpus must be 0 or more, got -1"),
    ],
)
def test_workers_that_make_no_sense(given, says):
    with pytest.raises(ValueError, match=says):
        Workers(**given)


def test_on_ray_a_gpu_has_no_number(cells):
    with pytest.raises(ValueError, match=r"sees its own GPU as cuda, got --device cuda:1"):
        Workers(backend="ray").train([replace(cells[0], device="cuda:1")])


def test_the_command_writes_rows_tables_and_figures_and_goes_on(tmp_path, capsys):
    out = tmp_path / "sweep"
    assert main([*WORDS, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "uniform-rows 0.5" in printed and "effective" in printed
    names = {file.name for file in out.iterdir()}
    assert names >= {
        "rows.parquet",
        "summary.parquet",
        "predictions.parquet",
        "curves.png",
        "final.pdf",
        "sweep.json",
    }
    about = records.read_json(out / "sweep.json")
    assert about["grid"]["steps"] == 4 and {"commit", "torch", "data"} <= set(about)
    assert (
        main([*WORDS, "--seeds", "0", "1", "--out", str(out)]) == 0
    )  # a larger grid takes what is there
    assert set(records.read_rows(out / "rows.parquet")["seed"]) == {0, 1}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--jobs", "0"], "--jobs must be 1 or more, got 0"),
        (["--estimators", "gausian"], "did you mean 'gaussian'"),
        (["--model", "minilm"], "digits-mlp takes no pretrained"),
        (["--batch-size", "5000"], "a batch of 5000 cannot be drawn from 1500 examples"),
        (["--steps", "1"], "needs 2 steps or more"),
        (["--costs", "nowhere"], "no file nowhere/cost.parquet"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, words, says):
    assert main([*WORDS, "--out", str(tmp_path / "x"), *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert not list((tmp_path / "x").glob("cells/*"))


ON_RAY = """
import pickle, sys
from pathlib import Path
import ray
from sketchvar.analysis.sweep import Sweep, Workers, sweep
try:
    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False)
except Exception as error:
    sys.exit(f"no Ray: {error}")
told = []
cells = pickle.load(sys.stdin.buffer)
workers = Workers(backend="ray", gpus=1)
sweep(cells, Sweep(Path(sys.argv[1])), workers, progress=lambda *numbers: told.append(numbers))
assert told == [(1, 4), (2, 4), (3, 4), (4, 4)], told

import os, signal, time
from sketchvar.analysis.sweep.workers import run_on_ray

marker = sys.argv[1] + "/once"  # a worker has other arguments

def look(item):
    begun = time.time()
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "once" and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), begun, time.time()

found = list(run_on_ray(look, [0, 1, 2, 3], gpus=1))
assert sorted(item for item, _ in found) == [0, 1, 2, 3]
assert {seen for _, (seen, *_) in found} == {"0", "1"}, found  # each run sees one, and its own
for _, (one, begun, ended) in found:
    for _, (other, later, _) in found:
        assert one != other or not begun < later < ended, found
most = list(run_on_ray(look, [0, 1], jobs=1))
assert most[0][1][2] < most[1][1][1], most
lost = dict(run_on_ray(look, ["killed", "once"], restarts=1))
assert isinstance(lost["killed"], ray.exceptions.RayError), lost
assert not isinstance(lost["once"], Exception), lost
"""


@pytest.mark.slow
def test_a_local_ray_gives_the_same_table_and_each_run_its_own_gpu(cells, whole, tmp_path):
    """The GPUs are Ray's only: nothing runs on them."""
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    some, words = cells[:4], [sys.executable, "-c", ON_RAY, str(tmp_path)]
    environment = os.environ | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
    }
    done = subprocess.run(words, input=pickle.dumps(some), capture_output=True, env=environment)
    said = done.stderr.decode()
    if "no Ray: " in said:
        pytest.skip(f"Ray does not start here: {said.split('no Ray: ')[1][:200]}")
    assert done.returncode == 0, said[-3000:]
    assert_same(
        Sweep(tmp_path).table(some),
        whole[whole["cell"].isin([c.name for c in some])].reset_index(drop=True),
    )


def test_progress_counts_what_is_trained_or_has_failed(cells, tmp_path, monkeypatch):
    folder, bad, told = Sweep(tmp_path), cells[1].name, []
    monkeypatch.setattr(sweeping, "train", lambda cell: 1 / 0 if cell.name == bad else train(cell))
    sweep(cells[:3], folder, progress=lambda *numbers: told.append(numbers))
    assert told == [(1, 3), (2, 3), (3, 3)]
    told.clear()
    monkeypatch.undo()
    sweep(cells[:3], folder, retry=True, progress=lambda *numbers: told.append(numbers))
    assert told == [(3, 3)] and not folder.errors(cells)


def test_memory_is_measured_once_and_again_where_another_precision_trains(tmp_path):
    folder, told = Sweep(tmp_path), []
    folder.open()
    few = replace(GRID, estimators=("gaussian",), rates=(0.5,))
    table = folder.activations(few, lambda *numbers: told.append(numbers))
    assert told == [(0, 2), (1, 2), (2, 2)]
    (file,) = tmp_path.glob("memory-*.parquet")
    records.write_rows(file, table.assign(same_memory_batch=7))
    assert set(folder.activations(few)["same_memory_batch"]) == {7}
    narrow = replace(few, options=(*few.options, ("precision", "bfloat16")))
    for grid in (narrow, few):
        fields = asdict(grid)
        for name in ("seeds", "steps", "evaluations", "fractions"):
            del fields[name]
        old = tmp_path / f"memory-{records.fingerprint(fields)}.parquet"  # without peaks, as it was
        records.write_rows(old, table.assign(same_memory_batch=8))
    assert 8 not in set(folder.activations(narrow)["same_memory_batch"])
    assert set(folder.activations(few)["same_memory_batch"]) == {7}


@pytest.mark.slow  # figures; test_train.py trains by a plan
def test_plans_are_trained_beside_the_estimators(tmp_path, capsys):
    """Each by the name of its file, under any seed; cells without one keep their names."""
    for name, bits in (("low", 1), ("high", 4)):
        layers = {"0": f"rounding:{bits}", "2": "exact"}
        records.write_json(tmp_path / f"{name}.json", {"layers": layers})
    words = [*WORDS, "--out", str(tmp_path / "out"), "--fractions"]
    plans = [str(tmp_path / f"{name}.json") for name in ("low", "high")]
    assert main([*words, "--plans", *plans]) == 0
    assert "plan:low" in capsys.readouterr().out
    rows = records.read_rows(tmp_path / "out" / "rows.parquet")
    assert {"plan:low", "plan:high", "uniform-rows", "exact"} == set(rows["estimator"])
    files = {file.stem for file in (tmp_path / "out" / "cells").iterdir()}
    without = Grid("digits-mlp", (), ("uniform-rows",), (0.5,), (0,), 4, 1)
    assert {cell.name for cell in without.cells(pd.DataFrame())} < files
    assert main([*words, "--plans", plans[0], plans[0]]) == 2
    assert "plans need different names, got low low" in capsys.readouterr().err
