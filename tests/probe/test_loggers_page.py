"""Every recipe of docs/loggers.md runs, and its logger then holds the probe's numbers."""

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "loggers.md").read_text()
RECIPES = dict(re.findall(r"^## (.*?)\n.*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
COMMON = RECIPES.pop("A training to log")
RATIO = "sketchvar/ratio/countsketch/0.5/total"
LAYER = "sketchvar/layers/net.0/grad_sq"
HEAVY = {"Weights & Biases", "Trackio"}  # start processes and threads of their own
SLOW = {*HEAVY, "TensorBoard", "Lightning Fabric"}  # to import


def of_board(folder, prefix=""):
    """Steps of the ratio in TensorBoard's files."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (file,) = folder.rglob("events.out.tfevents.*")
    board = reader.EventAccumulator(str(file))
    board.Reload()
    return {one.step for one in board.Scalars(prefix + RATIO)}


def of_mlflow(space):
    client = space["mlflow"].MlflowClient()
    (run,) = client.search_runs(["0"])
    assert client.get_metric_history(run.info.run_id, LAYER)
    return {one.step for one in client.get_metric_history(run.info.run_id, RATIO)}


def of_csv(folder):
    (file,) = Path(folder).rglob("metrics.csv")
    return set(pd.read_csv(file).dropna(subset=[RATIO])["step"])


def of_wandb(space):
    """The steps where its file names the ratio: protobuf, whose reader is not in the package."""
    (file,) = Path("wandb").glob("offline-run-*/*.wandb")
    steps = re.findall(rb"_step[^_]{1,8}?(\d+)", file.read_bytes())
    assert file.read_bytes().count(RATIO.encode()) >= len(set(steps)) > 0
    return {int(step) for step in steps}


def of_trackio(space):
    (file,) = Path("trackio").glob("*.db")
    with sqlite3.connect(file) as base:
        lines = base.execute("select step, metrics from metrics").fetchall()
    return {step for step, metrics in lines if RATIO.encode() in metrics}


READ = {
    "TensorBoard": ("tensorboard", lambda space: of_board(Path("runs/board"))),
    "Weights & Biases": ("wandb", of_wandb),
    "Trackio": ("trackio", of_trackio),
    "MLflow": ("mlflow", of_mlflow),
    "Accelerate": ("accelerate", lambda space: of_board(Path("runs/accelerate"))),
    "Lightning Fabric": ("lightning", lambda space: of_csv("runs/fabric")),
    "Lightning Trainer": ("lightning", lambda space: of_csv("runs/lightning")),
    "Hugging Face Trainer": ("accelerate", lambda space: of_board(Path("runs/trainer"), "train/")),
}


def test_every_recipe_is_tested():
    assert set(RECIPES) == set(READ)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in READ]
)
def test_recipe(name, tmp_path, monkeypatch):
    package, read = READ[name]
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    space, lines = {}, COMMON + RECIPES[name]
    if name in HEAVY:
        subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True)
    else:
        exec(lines, space)
    steps = read(space)
    if name == "Hugging Face Trainer":
        assert steps == {1, 3, 5, 7}  # it counts the steps that are over
        history = space["trainer"].state.log_history
        assert {one["step"] for one in history if "loss" in one} == {2, 4, 6, 8}  # its own
    else:
        assert steps == {0, 2, 4, 6} if name == "Lightning Trainer" else {0, 2, 4}
