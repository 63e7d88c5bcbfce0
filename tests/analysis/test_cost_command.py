"""sketchvar cost and sketchvar forks: what they write, print, draw, and refuse."""

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.cost.effective import judge
from sketchvar.analysis.noise.select import in_order
from sketchvar.analysis.report import cost as report
from sketchvar.analysis.report.cost_across import say_change
from sketchvar.analysis.report.kinds import find_kind

TASK = ["--task", "digits-mlp", "--set", "width=8", "--batch-size", "16", "--steps", "12"]
FEW = ["--estimators", "countsketch", "rounding:2", "--rates", "0.5", "--draws", "4", "--jobs", "1"]


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    out = tmp_path_factory.mktemp("work") / "cost"
    words = ["--nodes", "3", "--by-layer", "--measure-at", "4", "--out", str(out), "--quiet"]
    assert main(["cost", *TASK, *FEW, *words]) == 0
    return out


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    out = tmp_path_factory.mktemp("work") / "forks"
    words = ["--ahead", "2", "--forks", "3", "--tuning", "1", "--out", str(out), "--quiet"]
    assert main(["forks", *TASK, *FEW, *words]) == 0
    return out


def test_cost_writes_tables_and_figures(costs):
    names = {file.name for file in costs.iterdir()}
    tables = ("cost", "cost-layers", "coherence", "cost-draws", "spectra")
    assert {f"{name}.parquet" for name in tables} < names
    drawn = ("cost", "cost_by_horizon", "cost_and_bytes", "coherence", "cost_by_layer")
    assert {f"{name}.{kind}" for name in drawn for kind in ("png", "pdf")} < names
    assert find_kind(costs).name == "costs of noise"


def test_the_whole_catalog_has_a_frontier(tmp_path, capsys):
    words = ["--estimators", "catalog", "--rates", "0.4", "--draws", "1", "--horizons", "1", "2"]
    words += ["--nodes", "2", "--jobs", "1", "--out", str(tmp_path)]
    assert main(["cost", *TASK, *words]) == 0
    printed, told = capsys.readouterr()
    assert "Least cost of noise" in printed and "baseline" in printed
    assert "Holding up to 0 MB beside three training steps" in told
    assert {"cost_frontier.png", "cost_frontier.pdf"} < {file.name for file in tmp_path.iterdir()}
    rows = records.read_rows(tmp_path / "cost.parquet")
    assert {"rounding:1", "countsketch", "nvfp4", "feature-haar"} < set(rows["estimator"])
    assert not rows["oracle"].any() and rows["biased"].any()
    assert set(rows["family"]) == {"sampled rows", "row sketches", "features", "rounding"}
    coherent = records.read_rows(tmp_path / "coherence.parquet")
    assert set(coherent["noise"]) == {"minibatch", "minibatch, linear weights", "uniform-rows"}


def test_curvatures_of_the_same_draws(tmp_path, capsys):
    words = ["--measure-at", "4", "--horizons", "1", "--agree", "kicks", "hessian"]
    assert main(["cost", *TASK, *FEW, *words, "--out", str(tmp_path)]) == 0
    assert "One-step cost by several curvatures" in capsys.readouterr().out
    rows = records.read_rows(tmp_path / "agreement.parquet")
    assert set(rows["curvature"]) == {"kicks", "hessian"} and (rows["draws"] == 4).all()
    assert set(rows["noise"]) > {"minibatch", "countsketch", "rounding:2"}
    assert rows[["over_first", "cost_ratio", "first"]].notna().all(axis=None)


def test_cost_prints_what_its_rows_say(costs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["figures", str(costs)]) == 0
    printed = capsys.readouterr().out
    assert "cost, 1 step" in printed and "cost, ∞" in printed and "one seed for all" in printed
    assert max(map(len, printed.splitlines())) <= 80 + len(str(costs)) and "…" not in printed
    assert main(["figures", str(costs), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    rows = records.read_rows(costs / "cost.parquet").set_index(["estimator", "horizon"])
    line = next(each for each in content["cost"] if each["estimator"] == "countsketch")
    assert line["cost_0"] == pytest.approx(rows.loc[("countsketch", 1.0), "cost_ratio"])
    assert line["variance_ratio"] == pytest.approx(rows.loc[("countsketch", 1.0), "variance_ratio"])


def test_the_same_command_goes_on(costs, capsys):
    words = ["--nodes", "3", "--by-layer", "--measure-at", "4", "--out", str(costs), "--quiet"]
    before = (costs / "cost.parquet").stat().st_mtime_ns
    assert main(["cost", *TASK, *FEW, *words]) == 0
    assert (costs / "cost.parquet").stat().st_mtime_ns == before
    assert main(["forks", *TASK, *FEW, "--out", str(costs)]) == 2
    assert "holds a cost, not a forks" in capsys.readouterr().err


def test_forks_print_a_verdict(forks, capsys):
    assert find_kind(forks).name == "forks"
    assert main(["report", str(forks)]) == 0
    assert "Predictions of the effective batch" in (forks / "report.html").read_text()
    capsys.readouterr()
    assert main(["figures", str(forks)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "exact, 0.125 of the batch" in printed
    assert "Nearest comes" in printed or "nothing can be judged" in printed


def test_bad_words(tmp_path, capsys):
    out = ["--out", str(tmp_path / "x"), "--task", "digits-mlp"]
    for words, what in (
        (["cost", "--measure-at", "0"], "at step 0 the optimizer has no state"),
        (["cost", "--horizons", "-1"], "a horizon is a whole number"),
        (["forks", "--jobs", "0"], "--jobs must be 1 or more"),
        (["cost", "--estimators", "countsketsch"], "did you mean 'countsketch'"),
        (["forks", "--forks", "1"], "forks need 1 step"),
        (["forks", "--fractions", "0.5"], "hold 1, the whole batch"),
    ):
        assert main([*words, *out]) == 2
        error = capsys.readouterr().err
        assert what in error and error.rstrip().endswith(f"see sketchvar {words[0]} --help")
    assert not (tmp_path / "x").exists()


def test_the_verdict_is_on_the_nearest_that_holds():
    """Ten methods whose effective batch is right by cost, and twice too small by variance."""
    truth = [0.2 + 0.05 * i for i in range(10)]
    rows = pd.DataFrame(
        {
            "estimator": [f"e{i}" for i in range(10)],
            "rate": 1.0,
            "fraction": 1.0,
            "tuned": True,
            "inside": True,
            "effective": truth,
            "low": [0.9 * f for f in truth],
            "high": [1.1 * f for f in truth],
            "by_both_stderr": 0.0,
        }
    )
    for name, factor in (("variance", 0.5), ("metric", 0.4), ("cost", 1.02), ("both", 1.3)):
        rows[f"by_{name}"] = factor * rows["effective"]
        rows[f"{name}_ratio_stderr"] = 0.0
        rows[f"off_{name}"] = (factor - 1) / 0.1
    found = judge(rows).set_index("prediction")
    assert found["within"].to_dict() == {"variance": 0, "metric": 0, "cost": 10, "both": 0}
    assert found.loc["variance", "octaves"] == pytest.approx(-1)
    assert found.loc["variance", "spread"] == pytest.approx(1)
    assert found.loc["cost", "p"] > 0.9 and found.loc["both", "p"] < 1e-6
    # deviations of one standard error in each of ten: χ² = 10 of 10
    rows["by_cost"] = rows["effective"] * (1 + 0.1 / 1.96)
    rows["off_cost"] = 1 / 1.96
    assert judge(rows).set_index("prediction").loc["cost", "p"] == pytest.approx(0.4405, abs=1e-3)
    said = report.say_verdict(judge(rows))
    assert "the cost over the forks' horizon: 10 of 10" in said and "do not contradict" in said
    assert "nothing can be judged" in report.say_verdict(judge(rows.assign(inside=False)))
    assert math.isnan(judge(rows.assign(inside=False))["p"].iloc[0])
    assert found["rank"].min() == pytest.approx(1)
    assert judge(rows.assign(effective=0.3))["rank"].isna().all()  # and nothing is warned of


def test_a_scale_without_order_is_not_judged():
    rows = pd.DataFrame(
        {
            "estimator": "exact",
            "fraction": [1.0, 0.5, 1.0, 0.5],
            "step": [3, 3, 9, 9],
            "tuned": True,
            "effective": [1.0, 0.5, 0.3, 1.0],
        }
    )
    assert in_order(rows)["step"].tolist() == [3, 3]
    assert in_order(rows[rows["fraction"] < 1])["step"].tolist() == [3, 9]  # not known
    assert "itself read off at 0.30" in report.say_disorder(rows[rows["step"] == 9])


def test_several_runs_beside_each_other(costs, forks, tmp_path, capsys):
    wider = [word.replace("width=8", "width=12") for word in TASK]
    words = ["--nodes", "3", "--measure-at", "4", "--out", str(tmp_path), "--agree", "kicks"]
    assert main(["cost", *wider, *FEW, *words, "--quiet"]) == 0
    capsys.readouterr()
    assert main(["figures", str(costs), str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "From width 8 to width 12 the minibatch's coherence" in printed
    assert "One-step cost by several curvatures" in printed
    assert {"coherence_across.png", "cost_across.png"} < {file.name for file in costs.iterdir()}
    assert main(["figures", str(costs), str(forks)]) == 2
    assert (
        "holds forks: runs, costs of noise, forks, training runs or frontiers can be"
        in capsys.readouterr().err
    )


def test_forks_of_several_trainings_beside_each_other(forks, tmp_path, capsys):
    one, other = (Path(shutil.copytree(forks, tmp_path / name)) for name in ("one", "other"))
    rows = records.read_rows(one / "effective.parquet")
    whole = (rows["estimator"] == "exact") & (rows["fraction"] == 1)

    def show(read_off):
        for folder in (one, other):
            changed = rows.assign(effective=rows["effective"].mask(whole, read_off))
            changed.to_parquet(folder / "effective.parquet")
        assert main(["figures", str(one), str(other)]) == 0
        return capsys.readouterr().out

    assert "nothing can be judged" in " ".join(show(0.9).split())
    assert not (one / "effective_across.png").exists()
    printed = show(1.0)
    both = judge(pd.concat([rows] * 2))
    line = next(line for line in printed.splitlines() if line.startswith("cost "))
    assert line.split()[1] == f"{both.set_index('prediction').loc['cost', 'methods']}"
    assert "Times that each prediction" in printed and (one / "effective_across.png").exists()


def test_a_change_of_coherence_is_said_with_its_sureness():
    rows = pd.DataFrame(
        [("minibatch", "own", 0.5, 0.03, "2"), ("minibatch", "own", 0.7, 0.04, "8")],
        columns=["noise", "seeds", "coherence", "coherence_stderr", "of"],
    )
    assert "grows: 0.50 ± 0.03 and 0.70 ± 0.04, +4.0" in say_change(rows, ["2", "8"])[0]
    same = rows.assign(coherence=0.5)
    assert "is not seen to change" in say_change(same, ["2", "8"])[0]
    assert say_change(rows.assign(coherence_stderr=math.nan), ["2", "8"]) == []
