"""Every kind of folder that a command writes is known by its files: `figures` prints and draws it,
`report` makes a page of it, and a folder of no kind is named in one line.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.bench.probe import COLUMNS
from sketchvar.analysis.report.kinds import KINDS, find_kind, read_folder

DATA = Path(__file__).parents[2] / "data"
# what was recorded by earlier versions: folder -> kind, and a number of its first table
RECORDED = {
    "stdlib-lm": ("a run", "ratio_by_layer"),
    "plan": ("a run", "ratio_by_layer"),
    "train/stdlib-lm": ("training runs", "summary"),
    "equal-time/stdlib-lm": ("training runs", "summary"),
    "truth/stdlib-lm": ("redrawn minibatches", "truth"),
    "frontier": ("a frontier", "frontier"),
    "scores/glue-cola-minilm": ("predicted scores", "scores"),
    "layers": ("times of layers", "layer"),
    "memory/roberta": ("peak memory", "memory"),
    "paper/averaging": ("averaged sketches", "averaging"),
    "paper/axis": ("a frontier", "frontier"),
    "paper/depth": ("a run", "ratio_by_layer"),
}


@pytest.fixture
def recorded(tmp_path):
    """Copy a recorded folder, with what large files it has made small."""

    def copy(name: str) -> Path:
        out = tmp_path / name.replace("/", "-")
        shutil.copytree(DATA / name, out, ignore=shutil.ignore_patterns("cells", "*.png", "*.md"))
        for file in (out / "frontier.parquet", out / "rows.parquet"):
            if file.exists() and "layer" in (rows := pd.read_parquet(file)):
                few = list(dict.fromkeys(rows["layer"]))[:3]
                rows[rows["layer"].isin(few)].to_parquet(file)
        return out

    return copy


@pytest.mark.parametrize("name", RECORDED)
def test_what_was_recorded_is_known_printed_and_drawn(name, recorded, capsys):
    kind, table = RECORDED[name]
    folder = recorded(name)
    assert find_kind(folder).name == kind
    assert main(["figures", str(folder), "--json"]) == 0, capsys.readouterr().err
    content = json.loads(capsys.readouterr().out)
    assert content[table]
    assert content["files"] and all(Path(file).stat().st_size > 5000 for file in content["files"])


@pytest.mark.parametrize("name", ["train/stdlib-lm", "frontier", "truth/stdlib-lm"])
def test_a_page_of_any_kind(name, recorded, capsys):
    folder = recorded(name)
    assert main(["report", str(folder)]) == 0, capsys.readouterr().err
    text = (folder / "report.html").read_text()
    assert "<svg" in text and text.count("<table") >= 1 and "<h1>Verdict</h1>" in text
    verdict = text.partition('<ol class="verdict">')[2].partition("</ol>")[0]
    assert 1 <= verdict.count("<li>") <= 3


def test_a_summary_says_what_its_rows_say(recorded, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    folder = recorded("train/stdlib-lm")
    assert main(["figures", str(folder)]) == 0
    printed = capsys.readouterr().out
    table = records.read_rows(folder / "summary.parquet")
    line = table[(table["estimator"] == "gaussian") & (table["rate"] == 0.1)].iloc[0]
    words = " ".join(printed.split())
    assert f"{line['validation_smaller']:.3f} ± 0.088 (batch 10)" in words  # pooled
    assert "0.345 ± 0.088*" in words and "seeds would have shown a difference in loss of" in words
    assert all(len(row) <= 80 for row in printed.splitlines() if str(folder) not in row)
    assert "…" not in printed


def test_a_batch_that_saves_nothing_and_few_seeds_are_said(recorded, capsys):
    folder = recorded("train/cifar10-vit")  # of before summaries had all that is shown
    rows = records.read_rows(folder / "rows.parquet")
    table = records.read_rows(folder / "summary.parquet")
    table.loc[table["estimator"] == "gaussian", "same_memory_batch"] = rows["batch"].max()
    records.write_rows(folder / "summary.parquet", table)
    records.write_rows(folder / "rows.parquet", rows[rows["seed"] < 2])
    assert main(["figures", str(folder)]) == 0
    printed = capsys.readouterr().out
    words = " ".join(printed.split())
    assert words.count("saves nothing") == 2 + 1 and "Two seeds: " in words  # and a peak


def test_folders_of_no_kind_are_named(tmp_path, capsys):
    assert main(["figures", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["figures", str(tmp_path)]) == 2
    assert "holds nothing: nothing that sketchvar writes (" in capsys.readouterr().err
    (tmp_path / "thesis.tex").touch()
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "holds thesis.tex: nothing that sketchvar writes" in error
    assert all(kind.name in error for kind in KINDS)
    (tmp_path / "run.json").write_text("{}")
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no rows; what writes to it stopped" in capsys.readouterr().err


def test_files_of_a_probe(tmp_path, recorded, capsys):
    rows = records.read_rows(recorded("stdlib-lm") / "rows.parquet")
    for step, part in rows.groupby("step"):
        (tmp_path / "probe").mkdir(exist_ok=True)
        records.write_rows(tmp_path / "probe" / f"step-{step:08d}.parquet", part)
    assert find_kind(tmp_path / "probe").name == "files of a probe"
    assert main(["figures", str(tmp_path / "probe")]) == 0
    assert "effective batch" in capsys.readouterr().out


def test_a_plan_alone(tmp_path):
    plan = {"budget": {"memory": 0.25}, "totals": {"ratio": 0.5}, "layers": {"0": "rounding:2"}}
    records.write_json(tmp_path / "plan.json", plan)  # of an earlier version
    contents = read_folder(tmp_path)
    assert contents.tables[0].records() == [{"layer": "0", "estimator": "rounding:2"}]
    assert contents.tables[1].records() == [{"choice": "this plan", "ratio": 0.5}]


def test_the_cost_of_a_probe(tmp_path, capsys):
    line = ("cpu", "a model", "row", 1, 1.0213, 1.01, 1.03, 1.0, 5)
    rows = pd.DataFrame([line], columns=COLUMNS)
    records.write_rows(tmp_path / "probe.parquet", rows)
    assert find_kind(tmp_path).name == "cost of the probe"
    assert main(["figures", str(tmp_path)]) == 0
    assert "1.021  1.010–1.030" in capsys.readouterr().out


def test_rows_of_another_version_are_one_line(recorded, capsys):
    folder = recorded("train/stdlib-lm")
    rows = records.read_rows(folder / "rows.parquet").drop(columns="seed")
    records.write_rows(folder / "rows.parquet", rows)
    assert main(["figures", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "holds training runs of another version, without 'seed'; measure again" in error


def test_the_commit_is_marked_where_code_was_changed_and_not_where_data_was(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    code, data = tmp_path / "analysis" / "records.py", tmp_path / "data" / "rows.parquet"
    for file in (code, data):
        file.parent.mkdir()
        file.write_text("before")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(records, "__file__", str(code))
    clean = records.commit()
    data.unlink()
    assert len(clean) == 40 and records.commit() == clean
    code.write_text("after")
    assert records.commit() == clean + "+"
