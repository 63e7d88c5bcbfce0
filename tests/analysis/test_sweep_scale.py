"""Sweeps at scale: GPUs, workers that are killed, job arrays, a config in a file."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from support.small_sweep import GRID, WORDS, assert_same
from support.worker import look

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.sweep.cell import train
from sketchvar.analysis.sweep.grid import Grid
from sketchvar.analysis.sweep.results import claim_sweep
from sketchvar.analysis.sweep.run import Sweep
from sketchvar.analysis.sweep.workers import list_gpus, run_on_processes


def test_processes_see_a_gpu_each_and_a_killed_one_is_begun_again(tmp_path):
    items = [("killed", tmp_path / "a"), ("once", tmp_path / "b")]
    items += [(str(i), tmp_path) for i in range(4)]
    found = dict(run_on_processes(look, items, jobs=2, gpus=["3", "GPU-5"]))
    assert set(found) == set(items)
    assert str(found.pop(items[0])).startswith("its process was killed, perhaps for its memory")
    assert set(found.values()) == {"3", "GPU-5"}


def test_gpus_are_shared_out_as_they_are_visible(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert list_gpus("cuda") == ["0", "1"]
    assert list_gpus("cpu") == list_gpus("cuda:1") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,7")
    assert list_gpus("cuda") == ["2", "7"]


PAGE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()


CONFIG = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1]


FEWER = ["--estimators", "uniform-rows", "--rates", "0.5", "--seeds", "0", "--evaluations", "1"]


def test_shares_of_a_sweep_in_any_order_give_its_table(tmp_path, capsys):
    """Each a job of an array, with the options in a file."""
    (tmp_path / "sweep.toml").write_text(CONFIG)
    words = ["train", "--config", str(tmp_path / "sweep.toml"), "--steps", "3", *FEWER]
    out = tmp_path / "shares"
    for share in ("2/2", "1/2"):
        assert main([*words, "--out", str(out), "--cells", share]) == 0
        assert (out / "rows.parquet").exists() == (share == "1/2")
    assert "runs have ended, all shares together" in capsys.readouterr().err
    one = Grid("digits-mlp", (("width", 64),), ("uniform-rows",), (0.5,), (0,), 3, 1, (0.5,))
    each = map(train, one.cells(Sweep(out).activations(one)))
    assert_same(records.read_rows(out / "rows.parquet"), pd.concat(each, ignore_index=True))
    grid = records.read_json(out / "sweep.json")["grid"]
    assert grid["options"] == [["width", 64]] and grid["fractions"] == [0.5]
    assert (grid["steps"], grid["seeds"]) == (3, [0])  # what is typed comes before


def test_jobs_may_begin_a_sweep_at_the_same_time(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: claim_sweep(Sweep(tmp_path / "new"), GRID), range(8)))
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"sweep.json", "cells", "failed"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rate = [0.5]", "has an unknown key 'rate'; did you mean 'rates'? known are"),
        ("steps = 'ten'", "argument --steps: invalid int value: 'ten'"),
        ("steps = ", "is not TOML"),
        ("steps = 2026-01-01", "steps has a date, which no option takes"),
        ("[set]\nwidht = 16", "digits-mlp takes no widht; did you mean 'width'?"),
        (None, "cannot read --config"),
    ],
)
def test_a_config_that_cannot_be_meant(tmp_path, capsys, text, says):
    path = tmp_path / "sweep.toml"
    if text is not None:
        path.write_text(text)
    words = ["train", "--task", "digits-mlp", "--out", str(tmp_path / "x"), "--config", str(path)]
    try:
        assert main(words) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("words", [["--cells", "0/2"], ["--cells", "3/2"], ["--cells", "1"]])
def test_a_share_that_is_none(capsys, words):
    with pytest.raises(SystemExit):
        main([*WORDS, *words])
    assert "a share is I/N" in capsys.readouterr().err
    assert main([*WORDS, "--cells", "1/2"]) == 2
    assert "--cells needs --out" in capsys.readouterr().err
