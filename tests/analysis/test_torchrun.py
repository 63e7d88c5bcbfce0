"""sketchvar run under torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sketchvar.analysis.__main__ import main

WORDS = ["run", "--task", "digits-mlp", "--steps", "2", "--measure-at", "0", "2", "--rates", "0.5"]
WORDS += ["--batch-size", "25", "--set", "width=16", "--estimators", "gaussian", "rounding:2"]


def torchrun(*words):
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.run(
        [*command, "-m", "sketchvar", *words], env=environment, capture_output=True, text=True
    )


@pytest.mark.slow  # processes that begin
def test_torchrun_gives_the_rows_of_one_process(tmp_path):
    done = torchrun(*WORDS, "--json", "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(json.loads(done.stdout)) > 1  # one of the processes shows what came
    assert main([*WORDS, "--quiet", "--out", str(tmp_path / "one")]) == 0
    one, two = (pd.read_parquet(tmp_path / name / "rows.parquet") for name in ("one", "two"))
    errors = [column for column in one if column.endswith("_stderr")]
    pd.testing.assert_frame_equal(two.drop(columns=errors), one.drop(columns=errors), rtol=1e-5)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    again = torchrun(*WORDS, "--quiet", "--batch-size", "1", "--out", str(tmp_path / "small"))
    assert again.returncode and "has none for some of 2 processes" in again.stderr
