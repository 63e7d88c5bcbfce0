"""sketchvar plan: what it prints and writes, a model that trains with it, and one line for every
mistake.
"""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.plan.plan import load_plan
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.study.study import Study, run
from sketchvar.analysis.tasks import TASKS
from sketchvar.estimators import sketch_linears, spell, unsketch

TINY = replace(TASKS["stdlib-lm"], width=24, depth=1, heads=2, length=16, batch_size=4)
NAMES = ("countsketch", "uniform-rows", "rounding:2", "optimal-rows")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "stdlib-lm", TINY)
        return run(
            Study("stdlib-lm", 1, (0, 1), NAMES, (0.5, 0.1)),
            tmp_path_factory.mktemp("plan") / "run",
        )


def test_a_plan_trains_the_model_it_was_made_for(folder, capsys):
    """Its kept bytes are those that the sketched layers keep, each shared copy once."""
    assert main(["plan", str(folder), "--memory", "0.3", "--exact", "head"]) == 0
    printed = capsys.readouterr().out
    assert "Plan for at most 0.3 of X's bytes, mean of 2 measured steps" in printed
    for words in ("this plan", "best single: ", "uniform rows, rate ", "with blocks.0.query"):
        assert words in printed
    assert (folder / "plan.png").stat().st_size > 10_000 and (folder / "plan.pdf").exists()
    about = records.read_json(folder / "plan.json")
    assert (
        about["budget"] == {"memory": 0.3, "noise": None}
        and about["steps"] == [0, 1]
        and "commit" in about
    )
    assert about["totals"]["fraction"] <= 0.3
    plan = load_plan(folder / "plan.json")
    assert {name: spell(e) for name, e in plan.items()} | {"head": "exact"} == about["layers"] | {
        "head": "exact"
    }
    assert "head" not in plan and about["layers"]["head"] == "exact"

    torch.manual_seed(0)
    model = TINY.model()
    conversion = sketch_linears(model, plan)
    assert conversion.converted == plan and "no estimator was given" in conversion.skipped["head"]
    saved = {}

    def keep(t):
        saved[t.data_ptr()] = t
        return t

    owned = {p.data_ptr() for p in model.parameters()}
    batch = TINY.batch(0, 0)
    layer = model.blocks[0]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        h = torch.randn(4, 16, 24)
        outputs = [f(h) for f in (layer.query, layer.key, layer.value)]
    kept = sum(t.nbytes for at, t in saved.items() if at not in owned)
    assert len({about["layers"][f"blocks.0.{name}"] for name in ("query", "key", "value")}) == 1
    assert kept == plan["blocks.0.query"].kept_bytes(64, 24, torch.float32)
    del outputs
    before = TINY.validate(model, torch.device("cpu")).loss
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(20):
        optimizer.zero_grad()
        TINY.loss(model, TINY.batch(step, 0)).backward()
        optimizer.step()
    assert TINY.validate(model, torch.device("cpu")).loss < before - 0.5
    assert batch[0].shape == (4, 16) and set(unsketch(model)) == set(plan)


def test_for_a_noise_budget_from_a_step_on(folder, tmp_path, capsys):
    out = tmp_path / "a.json"
    assert main(["plan", str(folder), "--noise", "0.5", "--from-step", "1", "--out", str(out)]) == 0
    assert "a total ratio of at most 0.5, mean of 1 measured steps" in capsys.readouterr().out
    about = records.read_json(out)
    assert (
        about["totals"]["ratio"] <= 0.5 and about["steps"] == [1] and (tmp_path / "a.png").exists()
    )
    assert about["totals"]["batch_fraction"] == 1 / (1 + about["totals"]["ratio"])


def test_rows_of_an_older_run_or_of_a_probe(folder, tmp_path, capsys):
    rows = records.read_rows(folder / "rows.parquet").drop(columns=["input_of", "x_bytes"])
    for step, part in rows.groupby("step"):
        records.write_rows(tmp_path / f"step-{step:08d}.parquet", part)
    assert main(["plan", str(tmp_path), "--memory", "0.3"]) == 2
    assert "says in which precision X is kept; give --precision" in capsys.readouterr().err
    assert main(["frontier", "--run", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "says in which precision X is kept" in capsys.readouterr().err
    assert main(["plan", str(tmp_path), "--memory", "0.3", "--precision", "float32"]) == 0
    captured = capsys.readouterr()
    assert "do not say which layers read the same input" in captured.out.replace("\n", " ")
    assert "with blocks.0.query" not in captured.out


def test_the_rows_of_a_probe_say_in_which_precision_x_is_kept(tmp_path, capsys):
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 4)).bfloat16()
    probe = Probe(model, estimators=["uniform-rows"], rates=[0.5], out=tmp_path / "probe")
    with probe:
        model(torch.randn(8, 3, 6).bfloat16()).float().square().mean().backward()
        probe.step()
    assert probe.rows()["x_bytes"].tolist() == [8 * 3 * 6 * 2, 8 * 3 * 5 * 2]
    assert main(["plan", str(tmp_path / "probe"), "--memory", "0.9"]) == 0
    assert main(["figures", str(tmp_path / "probe")]) == 0
    assert "bytes kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{here}/nowhere", "--memory", "0.5"], "no file .*rows.parquet; give the folder of a run"),
        (["{run}"], "one of the arguments --memory --noise is required"),
        (
            ["{run}", "--memory", "0.5", "--noise", "1"],
            "--noise: not allowed with argument --memory",
        ),
        (
            ["{run}", "--memory", "25"],
            r"a fraction of X's bytes, 0 to 1, got 25; write 0\.25 for 25 %",
        ),
        (
            ["{run}", "--memory", "0.001"],
            r"no plan keeps at most 0\.001 of X's bytes; the least possible is 0\.\d+",
        ),
        (
            ["{run}", "--noise", "-1"],
            "a noise budget is a ratio to the minibatch variance, 0 or more, got -1",
        ),
        (["{run}", "--noise", "much"], "invalid float value: 'much'"),
        (["{run}", "--memory", "0.5", "--exact", "haed"], "'haed' matches no layer"),
        (
            ["{run}", "--memory", "0.5", "--from-step", "9"],
            "no step from 9 on was measured; the last one is 1",
        ),
        (
            ["{run}", "--memory", "0.5", "--out", "{here}/nowhere/p.json"],
            "there is no folder .*nowhere; make it",
        ),
        (
            ["{here}/oracles", "--memory", "0.5"],
            "no row is of an unbiased estimator that a layer can use",
        ),
        (["{here}/untold", "--memory", "0.5"], r"run\.json names no task"),
    ],
)
def test_bad_input_is_one_line(folder, tmp_path, capsys, words, says):
    rows = records.read_rows(folder / "rows.parquet")
    about = records.read_json(folder / "run.json")
    made = {
        "oracles": (rows[rows["estimator"] == "optimal-rows"], about),
        "untold": (rows.drop(columns="x_bytes"), {"run": "x"}),
    }
    for name, (some, told) in made.items():
        (tmp_path / name).mkdir()
        records.write_rows(tmp_path / name / "rows.parquet", some)
        (tmp_path / name / "run.json").write_text(json.dumps(told))
    try:
        status = main(["plan", *(word.format(here=tmp_path, run=folder) for word in words)])
    except SystemExit as done:
        status = done.code
    assert status == 2
    error = capsys.readouterr().err.strip()
    assert re.search(says, error) and "\n" not in error, error


def test_a_frontier_of_a_run_knows_its_precision(folder, tmp_path):
    """In half the bytes for X, the same kept bytes are twice the fraction."""
    fractions = {}
    for precision in ("float32", "bfloat16"):
        copy = tmp_path / precision
        copy.mkdir()
        rows = records.read_rows(folder / "rows.parquet").drop(columns="x_bytes")
        records.write_rows(copy / "rows.parquet", rows)
        study = {"task": "stdlib-lm", "options": [["precision", precision]]}
        records.write_json(copy / "run.json", {"run": "r", "study": study})
        assert main(["frontier", "--run", str(copy), "--out", str(copy / "out")]) == 0
        fractions[precision] = pd.read_parquet(copy / "out" / "frontier.parquet")["fraction"]
    pd.testing.assert_series_equal(fractions["bfloat16"], 2 * fractions["float32"])
