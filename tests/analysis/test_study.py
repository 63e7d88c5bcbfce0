"""A study from end to end: its rows, the same again, and the same again after being stopped at any
moment.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.noise.select import at_rate, by_unit
from sketchvar.analysis.noise.table import COLUMNS, METRIC
from sketchvar.analysis.study.study import Study, run
from sketchvar.analysis.tasks import TASKS
from sketchvar.estimators import CountSketch

SMALL = Study(
    "digits-mlp", 6, (0, 3, 6), ("gaussian", "countsketch", "optimal-rows", "exact"), (0.5, 0.1)
)
TABLES = ("rows", "losses", "draws")


def tables(folder: Path) -> list[pd.DataFrame]:
    return [records.read_rows(folder / f"{name}.parquet") for name in TABLES]


def assert_same(a: Path, b: Path) -> None:
    for one, other in zip(tables(a), tables(b), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(SMALL, tmp_path_factory.mktemp("run") / "a")


def test_rows(finished):
    rows, losses, draws = tables(finished)
    assert list(rows.columns) == COLUMNS
    assert len(rows) == 3 * 3 * (3 * 2 + 1)  # steps, layers, estimators with two rates and Exact
    assert set(rows["run"]) == {SMALL.name}
    assert (rows["ratio"] == rows["variance"] / rows["minibatch_example"]).all()
    # a row is an example here
    pd.testing.assert_series_equal(
        rows["minibatch_row"], rows["minibatch_example"], check_names=False, rtol=1e-6
    )
    assert (rows.loc[rows["estimator"] == "exact", "variance"] == 0).all()
    one = rows[(rows["estimator"] == "countsketch") & (rows["rate"] == 0.1)].iloc[0]
    assert one["kept_bytes"] == CountSketch(0.1).kept_bytes(
        int(one["rows"]), int(one["p"]), torch.float32
    )
    assert one["kept_rows"] == CountSketch(0.1).k(int(one["rows"])) == 10
    assert (rows["share"] == rows["kept_bytes"] / rows["x_bytes"]).all()
    assert (rows["uses"] == 1).all() and (rows["batches"] == 1).all()
    assert list(losses["step"]) == [0, 3, 6]
    assert losses["validation"].iloc[-1] < losses["validation"].iloc[0]
    assert len(draws) == 7
    noisy = draws[draws["variance"] > 0]
    assert (((noisy["measured"] - noisy["variance"]) / noisy["stderr"]).abs() < 6).all()


def test_spelled_estimators_come_once(tmp_path):
    spelled = (
        "countsketch:0.1",
        "centered(countsketch):0.1",
        "rounding:2",
        "uniform-rows:0.5+rounding:4",
        "gaussian",
    )
    study = replace(
        SMALL, steps=0, measure_at=(0,), estimators=(*spelled, "countsketch", "countsketch:0.5")
    )
    rows, _, draws = tables(run(study, tmp_path / "a"))
    names = [("countsketch", 0.1), ("centered(countsketch)", 0.1), ("rounding:2", 1.0)]
    names += [
        ("uniform-rows+rounding:4", 0.5),
        ("gaussian", 0.5),
        ("gaussian", 0.1),
        ("countsketch", 0.5),
    ]
    for table in (rows[rows["layer"] == rows["layer"].iloc[0]], draws):
        assert list(zip(table["estimator"], table["rate"], strict=True)) == names
    assert sorted(at_rate(rows, 0.1)["estimator"].unique()) == [
        "centered(countsketch)",
        "countsketch",
        "gaussian",
        "rounding:2",
    ]
    pd.testing.assert_frame_equal(rows, tables(run(study, tmp_path / "a", resume=True))[0])
    assert main(["figures", str(tmp_path / "a")]) == 0


def test_fresh_batches_are_averaged_and_the_training_is_the_same(finished, tmp_path):
    out = run(replace(SMALL, batches=3), tmp_path / "a")
    rows, losses, _ = tables(out)
    one, same, _ = tables(finished)
    assert losses.equals(same) and len(rows) == len(one) and (rows["batches"] == 3).all()
    assert (rows["population"] == 1500).all()
    noisy = rows["estimator"] != "exact"
    assert (rows.loc[noisy, "variance"] != one.loc[noisy, "variance"]).all()
    errors = [name for name in rows if name.endswith("_stderr") and name not in METRIC]
    assert (rows.loc[noisy, errors] > 0).all().all()
    for name in ("rows", "coverage", "losses"):
        assert (out / f"{name}.parquet").exists()
    with pytest.raises(ValueError, match="--batches must be 1 or more, got 0"):
        replace(SMALL, batches=0)


def test_in_the_metric_of_the_step(finished, tmp_path):
    """Unknown before the first update; then it is measured, and nothing else changes."""
    study = replace(SMALL, metric="progress")
    rows, losses, _ = tables(run(study, tmp_path / "a"))
    plain, same, _ = tables(finished)
    pd.testing.assert_frame_equal(losses, same)
    others = [name for name in COLUMNS if name not in ("run", *METRIC)]
    pd.testing.assert_frame_equal(rows[others], plain[others], rtol=1e-5)
    assert rows.loc[rows["step"] == 0, METRIC].isna().all(axis=None)
    later = rows[(rows["step"] > 0) & (rows["estimator"] != "exact")]
    assert (later[METRIC[:3]] > 0).all(axis=None) and later[METRIC[3]].isna().all()
    assert (later["metric_ratio"] / later["ratio"] - 1).abs().max() > 0.05
    update = replace(study, metric="update", batches=2, measure_at=(6,))
    several, _, _ = tables(run(update, tmp_path / "b"))
    assert (several.loc[several["estimator"] != "exact", METRIC] > 0).all(axis=None)
    with pytest.raises(ValueError, match=r"unknown metric 'updates'; did you mean 'update'\?"):
        replace(SMALL, metric="updates")


def test_provenance(finished):
    about = records.read_json(finished / "run.json")
    assert about["finished"] is True
    assert about["run"] == SMALL.name
    assert about["study"]["rates"] == [0.5, 0.1]
    assert {"commit", "date", "device", "hardware", "threads", "python", "torch", "data"} <= set(
        about
    )


def test_same_seed_same_rows_other_seed_other_rows(finished, tmp_path):
    assert_same(finished, run(SMALL, tmp_path / "again"))
    other = tables(run(replace(SMALL, seed=1), tmp_path / "other"))[0]
    assert (other["variance"] != tables(finished)[0]["variance"]).any()


def test_transformer_gives_identical_rows_and_both_units(tmp_path, monkeypatch):
    small = replace(TASKS["stdlib-lm"], width=24, depth=1, heads=2, length=16, batch_size=4)
    monkeypatch.setitem(TASKS, "stdlib-lm", small)
    study = Study("stdlib-lm", 2, (0, 2), ("uniform-rows",), (0.25,))
    assert_same(run(study, tmp_path / "a"), run(study, tmp_path / "b"))
    rows = tables(tmp_path / "a")[0]
    assert set(rows["layer"]) >= {"blocks.0.query", "blocks.0.down", "head"}
    assert (rows["minibatch_row"] != rows["minibatch_example"]).all()
    # uniform rows are a smaller batch in row units: (n − k)/k exactly
    units = by_unit(rows)
    assert (units.loc[units["unit"] == "row", "ratio"] - 3).abs().max() < 1e-9


class Stop(Exception):
    """What a test raises in place of a kill."""


@pytest.mark.parametrize("last", [0, 1, 3, 4, 6])
def test_stopped_after_any_step_and_resumed(finished, tmp_path, last):
    def stop(step, loss):
        if step == last:
            raise Stop

    with pytest.raises(Stop):
        run(SMALL, tmp_path / "b", progress=stop)
    kept = pd.read_parquet(tmp_path / "b" / "rows.parquet")
    assert set(kept["step"]) == {s for s in SMALL.measure_at if s <= last}
    assert_same(finished, run(SMALL, tmp_path / "b", resume=True))


def test_stopped_between_rows_and_checkpoint(finished, tmp_path, monkeypatch):
    from sketchvar.analysis.folder import Folder

    whole = Folder.save
    monkeypatch.setattr(
        Folder, "save", lambda *a: whole(*a) if a[1] < 3 else (_ for _ in ()).throw(Stop)
    )
    with pytest.raises(Stop):
        run(SMALL, tmp_path / "b")
    monkeypatch.setattr(Folder, "save", whole)
    assert_same(finished, run(SMALL, tmp_path / "b", resume=True))


def test_resuming_a_finished_run_changes_nothing(finished):
    before = tables(finished)
    run(SMALL, finished, resume=True)
    for one, other in zip(before, tables(finished), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_resume_with_other_options_is_refused(finished):
    with pytest.raises(
        ValueError,
        match=r"holds a run with rates \[0.5, 0.1\], not \[0.5\]; resume it with its own",
    ):
        run(replace(SMALL, rates=(0.5,)), finished, resume=True)
    with pytest.raises(ValueError, match="holds another run; choose another --out"):
        run(SMALL, finished)


def test_other_files_are_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        run(SMALL, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_is_not_writable(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="cannot write to"):
        run(SMALL, tmp_path / "x")


def test_out_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*choose another --out"):
        run(SMALL, tmp_path / "file" / "x")


def test_loss_that_is_not_finite_stops_and_keeps_the_rows(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "digits-mlp", replace(TASKS["digits-mlp"], learning_rate=1e30))
    with pytest.raises(
        FloatingPointError,
        match=r"the loss is (nan|inf) at step \d; the \d+ rows measured before it",
    ):
        run(SMALL, tmp_path / "b")
    assert set(pd.read_parquet(tmp_path / "b" / "rows.parquet")["step"]) == {0}


@pytest.mark.parametrize("file", ["rows.parquet", "checkpoint.pt", "run.json"])
def test_a_file_cut_short_is_named(tmp_path, file):
    run(SMALL, tmp_path / "b")
    path = tmp_path / "b" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        ValueError, match=rf"{file} (is not readable|is not a readable Parquet file)"
    ):
        run(SMALL, tmp_path / "b", resume=True)


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_killed_process_is_resumed_to_the_same_rows(tmp_path, how):
    words = [
        sys.executable,
        "-m",
        "sketchvar",
        "run",
        "--task",
        "digits-mlp",
        "--steps",
        "100000",
        "--seed",
        "3",
    ]
    words += [
        "--measure-at",
        *map(str, range(0, 200, 5)),
        "--estimators",
        "countsketch",
        "--rates",
        "0.1",
    ]
    out = tmp_path / "run"
    one_thread = os.environ | {
        "OMP_NUM_THREADS": "1"
    }  # as here: under another number sums round differently
    process = subprocess.Popen(
        [*words, "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        env=one_thread,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # which a shell's background jobs ignore
    )
    try:
        while not (out / "rows.parquet").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        time.sleep(0.15)
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (2 if how == signal.SIGINT else -how)
    if how == signal.SIGINT:
        assert "interrupted; what was measured is kept, go on with --out" in errors
        assert "Traceback" not in errors
    rows = records.read_rows(out / "rows.parquet")
    study = Study(
        "digits-mlp", 100000, tuple(range(0, 200, 5)), ("countsketch",), (0.1,), seed=3, batches=4
    )
    whole = run_until(study, tmp_path / "whole", rows["step"].max())
    pd.testing.assert_frame_equal(rows, whole, check_exact=True)
    again = run_until(study, out, rows["step"].max() + 5)
    pd.testing.assert_frame_equal(again.iloc[: len(rows)], rows, check_exact=True)


def run_until(study: Study, out: Path, step: int) -> pd.DataFrame:
    """The rows of a run that is stopped after ``step``."""

    def stop(now, loss):
        if now >= step:
            raise Stop

    with pytest.raises(Stop):
        run(study, out, resume=True, progress=stop)
    return records.read_rows(out / "rows.parquet")
