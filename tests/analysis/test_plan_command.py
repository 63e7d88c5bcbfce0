"""sketchvar plan: what it prints and writes, a model that trains with it, and one line for every
mistake.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
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

DATA = Path(__file__).parents[2] / "data"
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
    assert "Plan for at most 0.3 of X's bytes; of each layer" in printed
    assert "Chosen on step 0: " in printed and "errors are unknown" in printed
    for words in ("this plan", "best single: ", "uniform rows, rate ", "with blocks.0.query"):
        assert words in printed
    assert (folder / "plan.png").stat().st_size > 10_000 and (folder / "plan.pdf").exists()
    about = records.read_json(folder / "plan.json")
    assert (
        about["budget"] == {"memory": 0.3, "noise": None}
        and (about["steps"], about["held_out"]) == ([0], [1])
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
    printed = " ".join(capsys.readouterr().out.split())
    assert "a total of at most 0.5" in printed
    assert "one measured step: how it does on others and its error is unknown" in printed
    about = records.read_json(out)
    assert (
        about["totals"]["ratio"] <= 0.5 and about["steps"] == [1] and (tmp_path / "a.png").exists()
    )
    assert about["held_out"] == [] and about["totals"]["held_out"] is None


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
        (["{run}", "--memory", "0.5", "--hold-out", "0", "1"], "some of 0 1, not all, got 0 1"),
        (["{run}", "--memory", "0.5", "--objective", "metric"], "have no metric_ratio; measure it"),
        (
            ["{run}", "--memory", "0.5", "--objective", "cost"],
            r"no file .*cost-layers\.parquet; make",
        ),
        (["{run}", "--memory", "0.5", "--objective", "mean"], "invalid choice: 'mean'"),
        (["{run}", "--memory", "0.5", "--layers", "tail"], "'tail' matches no layer"),
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


@pytest.fixture
def costs(tmp_path):
    """A folder as of ``cost --by-layer``: two layers, of which the larger costs next to nothing."""
    lines = [
        (step, layer, name, rate, cost * part, 0.1 * cost * part, 8, n, 4, kept * n, 32 * n, layer)
        for step in (10, 20, 30)
        for layer, n, part in (("a", 100, 0.02), ("b", 50, 0.5))
        for name, rate, cost, kept in (("gaussian", 0.5, 1e-3, 16), ("rounding:2", 1.0, 1e-4, 20))
    ]
    columns = "step layer estimator rate cost cost_stderr p rows examples kept_bytes x_bytes"
    layers = pd.DataFrame(lines, columns=[*columns.split(), "input_of"])
    layers = layers.assign(cost_ratio=1.0, cost_ratio_stderr=0.1, sketchable=True, run="r")
    whole = layers.drop_duplicates(["step", "estimator"])[["step", "estimator", "rate"]]
    parts = [
        whole.assign(horizon=t, cost_ratio=c, cost_ratio_stderr=0.0)
        for t, c in ((1.0, [0.52, 0.052] * 3), (10.0, [2.6, 0.26] * 3), (float("inf"), 9.0))
    ]
    records.write_rows(tmp_path / "cost-layers.parquet", layers)
    records.write_rows(tmp_path / "cost.parquet", pd.concat(parts))
    return tmp_path


def test_a_plan_by_measured_cost(costs, capsys):
    """At 0.6 of the bytes one layer can be sketched: the one whose noise costs little, though its
    variance is the other's. Layers' parts add up to the whole model's cost over the horizon.
    """
    words = ["plan", str(costs), "--objective", "cost", "--memory", "0.55"]
    assert main([*words, "--horizon", "10"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Cost over 10 steps; by layer one step was measured" in printed
    plan = records.read_json(costs / "plan.json")
    assert plan["layers"] == {"a": "gaussian:0.5", "b": "rounding:2"}
    by_layer = 2.6 * 0.02 / 0.52 + 0.26 * 0.5 / 0.52
    assert plan["totals"]["ratio"] == pytest.approx(by_layer)
    assert plan["by_step"][0]["stderr"] == pytest.approx(0.1 * by_layer)
    assert main([*words, "--horizon", "1"]) == 0
    assert records.read_json(costs / "plan.json")["totals"]["ratio"] == pytest.approx(by_layer / 5)
    assert main(words) == 0  # over the longest finite horizon
    assert records.read_json(costs / "plan.json")["horizon"] == 10
    assert main([*words, "--horizon", "5"]) == 2
    assert "no cost over a horizon of 5 was measured; there are 1 10 inf" in capsys.readouterr().err
    layers = records.read_rows(costs / "cost-layers.parquet").drop(columns="input_of")
    records.write_rows(costs / "cost-layers.parquet", layers)
    assert main(words) == 2
    assert "does not say what each layer keeps" in capsys.readouterr().err


def test_layers_left_out_are_named(folder, tmp_path, capsys):
    rows = records.read_rows(folder / "rows.parquet")
    head = rows["layer"] == "head"
    records.write_rows(
        tmp_path / "rows.parquet", rows.assign(rows=rows["rows"].where(~head, rows["examples"]))
    )
    words = ["plan", str(tmp_path), "--memory", "0.3", "--precision", "float32"]
    assert main(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "see one row of each example where other layers see several: head." in printed
    assert "head" not in records.read_json(tmp_path / "plan.json")["layers"]
    assert main([*words, "--layers", "*"]) == 0
    assert "Left out" not in capsys.readouterr().out
    assert "head" in records.read_json(tmp_path / "plan.json")["layers"]


def test_the_recorded_plan_says_what_its_layers_have_at_the_last_step(tmp_path, capsys):
    """It was total 0.12 by a raw sum, with a median layer of 0.78 at step 300 and a largest of
    7.4: now each step is printed, and totals have errors that hold the held out ones.
    """
    rows = records.read_rows(DATA / "plan" / "rows.parquet")
    kept = ["uniform-rows", "centered(rounding:1)", "centered(uniform-rows+rounding:2)"]
    records.write_rows(tmp_path / "rows.parquet", rows[rows["estimator"].isin(kept)])
    words = ["plan", str(tmp_path), "--memory", "0.05", "--precision", "float32"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert ", within their errors: more by" in " ".join(printed.split())
    plan = records.read_json(tmp_path / "plan.json")
    last = plan["by_step"][-1]
    assert (last["step"], last["held_out"]) == (300, True)
    at = rows[rows["step"] == 300].set_index(["layer", "estimator", "rate"])["ratio"]
    each = [at[c["layer"], c["estimator"], c["rate"]] for c in plan["choices"]]
    assert (last["median"], last["largest"]) == pytest.approx((np.median(each), max(each)))
    assert last["ratio"] == pytest.approx(np.mean(each))


FORMATS = ("nvfp4-both", "mxfp4-both", "fp8-both")


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    """A plain run of two blocks, measured in formats."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "stdlib-lm", replace(TINY, depth=2, width=32))
        return run(
            Study("stdlib-lm", 2, (0, 1, 2), FORMATS, (0.5,)),
            tmp_path_factory.mktemp("formats") / "run",
        )


def test_which_layers_may_be_fp4(formats, tmp_path, capsys):
    """At the recipe's bytes, with less noise on the steps that were chosen on; each layer's format
    is one that the model trains with.
    """
    out = tmp_path / "formats.json"
    assert main(["plan", str(formats), "--formats", "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Of 13 layers" in printed and "The formats are emulated" in printed
    about = records.read_json(out)
    beside = {line["choice"]: line for line in about["beside"]}
    (recipe,) = (
        line for name, line in beside.items() if name.startswith("the last 15 % of blocks")
    )
    assert (
        about["totals"]["fraction"]
        <= recipe["fraction"] * (1 + 1e-9)
        == pytest.approx(about["budget"]["memory"])
    )
    other = beside["NVFP4 with other exceptions in BF16"]
    assert about["totals"]["ratio"] <= other["ratio"] <= recipe["ratio"]
    assert other["fraction"] <= recipe["fraction"] * (1 + 1e-9)
    assert about["exceptions"] and f"BF16 pays most in {about['exceptions'][0]}" in printed
    names = {spelling.partition(":")[0] for spelling in about["layers"].values()}
    assert names <= {*FORMATS, "exact"} and names & set(FORMATS)
    model = replace(TINY, depth=2, width=32).model()
    assert sketch_linears(model, load_plan(out)).converted
    batch = TINY.batch(0, 0)
    TINY.loss(model, batch).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    recipe, exceptions = (
        load_plan(tmp_path / f"formats-{n}.json") for n in ("recipe", "exceptions")
    )
    assert set(recipe) == {f"blocks.0.{n}" for n in ["query", "key", "value", "out", "up", "down"]}
    assert set(map(spell, exceptions.values())) == {"nvfp4-both"} and exceptions != recipe
    assert main(["plan", str(formats), "--formats", "--memory", "0.27", "--out", str(out)]) == 0
    assert records.read_json(out)["totals"]["fraction"] <= 0.27


def test_formats_have_to_be_measured(folder, capsys):
    assert main(["plan", str(folder), "--formats"]) == 2
    assert "these rows have no NVFP4; measure formats" in capsys.readouterr().err
