"""Costs and forks of tasks, written to folders: whole, resumed, refused."""

from math import inf

import pandas as pd
import pytest
from torch import nn

from sketchvar.analysis import records
from sketchvar.analysis.cost.branches import ForkStudy, branch
from sketchvar.analysis.cost.points import Points
from sketchvar.analysis.cost.study import CostStudy, measure
from sketchvar.analysis.tasks import find_task

SMALL = (("width", 8), ("batch_size", 16))


def costs(**changes) -> CostStudy:
    given = {
        "task": "digits-mlp",
        "steps": 12,
        "measure_at": (4, 8),
        "device": "cpu",
        "seed": 0,
        "options": SMALL,
        "estimators": ("countsketch", "rounding:2"),
        "rates": (0.5,),
        "horizons": (1, 2, 0),
        "draws": 4,
        "nodes": 3,
        "coherent": ("countsketch",),
        "layers": True,
    }
    return CostStudy(**(given | changes))


class Stop(Exception):
    pass


def stop_at(stage: str, done: int):
    def progress(what: str, number: int) -> None:
        if (what, number) == (stage, done):
            raise Stop

    return progress


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return measure(costs(), tmp_path_factory.mktemp("cost"))


def test_tables(whole):
    table = records.read_rows(whole / "cost.parquet")
    wanted = ["step", "estimator", "rate", "kept_bytes", "share", "horizon"]
    wanted += [f"{n}_ratio{e}" for n in ("variance", "metric", "cost") for e in ("", "_stderr")]
    assert list(table)[: len(wanted)] == wanted
    # what was asked for, the steps that are left of the schedule, and for ever
    found = {step: set(each) for step, each in table.groupby("step")["horizon"]}
    assert found == {4: {1, 2, 8, inf}, 8: {1, 2, 4, inf}}
    layers = records.read_rows(whole / "cost-layers.parquet")
    assert set(layers["layer"]) == {"0", "2", "4"} and set(layers["step"]) == {4, 8}
    coherence = records.read_rows(whole / "coherence.parquet")
    assert set(coherence["seeds"]) == {"own", "one"}
    assert records.read_json(whole / "run.json")["finished"]
    assert not (whole / "checkpoint.pt").exists()


def test_a_stopped_study_goes_on_to_the_same_rows(whole, tmp_path):
    with pytest.raises(Stop):
        measure(costs(), tmp_path / "a", progress=stop_at("draw", 20))  # in the second point
    assert set(records.read_rows(tmp_path / "a/cost.parquet")["step"]) == {4}
    with pytest.raises(ValueError, match="holds another run"):
        measure(costs(), tmp_path / "a")
    with pytest.raises(ValueError, match="with draws 4, not 5"):
        measure(costs(draws=5), tmp_path / "a", resume=True)
    measure(costs(), tmp_path / "a", resume=True)
    for name in ("cost", "cost-layers", "coherence"):
        one, other = (records.read_rows(p / f"{name}.parquet") for p in (whole, tmp_path / "a"))
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.slow  # a second process takes seconds to begin
def test_any_number_of_processes_makes_the_same_rows(whole, tmp_path):
    measure(costs(), tmp_path, jobs=2)
    for name in ("cost", "cost-layers", "coherence", "spectra"):
        one, other = (records.read_rows(p / f"{name}.parquet") for p in (whole, tmp_path))
        pd.testing.assert_frame_equal(one, other)


def forked(**changes) -> ForkStudy:
    given = {
        "task": "digits-mlp",
        "steps": 12,
        "measure_at": (4,),
        "device": "cpu",
        "seed": 0,
        "options": SMALL,
        "estimators": ("rounding:2",),
        "rates": (0.5,),
        "ahead": 2,
        "count": 2,
        "tuning": 1,
        "fractions": (1.0, 0.5),
        "draws": 4,
        "nodes": 3,
        "held_out": 1,
    }
    return ForkStudy(**(given | changes))


# a second process takes seconds to begin
@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_forks_go_on_where_they_were(tmp_path, jobs):
    branch(forked(), tmp_path / "whole")
    with pytest.raises(Stop):
        branch(forked(), tmp_path / "part", progress=stop_at("fork", 5))
    assert len(records.read_rows(tmp_path / "part/forks.parquet")) == 5
    branch(forked(), tmp_path / "part", resume=True, jobs=jobs)
    for name in ("cost", "forks", "effective"):
        one, other = (
            records.read_rows(tmp_path / p / f"{name}.parquet") for p in ("whole", "part")
        )
        pd.testing.assert_frame_equal(one, other)
    table = records.read_rows(tmp_path / "whole/effective.parquet")
    assert {"by_cost", "by_metric", "by_variance", "effective", "low", "high"} <= set(table)


def test_a_plan_of_one_estimator_is_that_estimator(tmp_path):
    """Forks and costs of it to the last digit; one that leaves layers exact keeps them whole."""
    model = find_task("digits-mlp", SMALL).model()
    layers = [name for name, each in model.named_modules() if isinstance(each, nn.Linear)]
    same = tuple((layer, "rounding:2") for layer in layers)
    some = (*same[:-1], (layers[-1], "exact"))
    study = forked(measure_at=(4,), plans=(("same", same), ("some", some)))
    branch(study, tmp_path)
    for name in ("cost", "effective"):
        rows = records.read_rows(tmp_path / f"{name}.parquet").drop(
            columns="family", errors="ignore"
        )
        alone, planned, part = (
            rows[rows["estimator"] == each].drop(columns="estimator").reset_index(drop=True)
            for each in ("rounding:2", "plan:same", "plan:some")
        )
        pd.testing.assert_frame_equal(alone, planned)
        assert (part["kept_bytes"] > planned["kept_bytes"]).all()  # must fail: part is another
        assert (part["variance_ratio"] < planned["variance_ratio"]).all()


def test_a_plan_of_another_model_is_refused_before_training(tmp_path):
    study, trained = forked(plans=(("other", (("head", "rounding:2"),)),)), []
    with pytest.raises(ValueError, match="'head' matches no layer of the model"):
        branch(study, tmp_path / "named", progress=lambda stage, done: trained.append(done))
    assert not trained
    assert not (tmp_path / "named").exists()  # the folder is still free for the right plan


def test_bad_studies():
    for wrong, what in (
        ({"measure_at": (0,)}, "at step 0 the optimizer has no state"),
        ({"measure_at": (13,)}, r"must lie within 1\.\.12"),
        ({"measure_at": (8, 4)}, "different and rising"),
        ({"curvature": "kick"}, "did you mean 'kicks'"),
        ({"draws": 0}, "--draws must be 1 or more"),
        ({"estimators": ("countsketsch",)}, "did you mean 'countsketch'"),
        ({"plans": (("a", (("head", "exact"),)),) * 2}, "different names, got a a"),
        ({"plans": (("a", ()),)}, "the plan a names no layer"),
        ({"task": "digits"}, "did you mean 'digits-mlp'"),
    ):
        with pytest.raises(ValueError, match=what):
            costs(**wrong)
    with pytest.raises(ValueError, match="forks need 1 step"):
        forked(ahead=0)
    points = Points("glue/cola", 100, (50,), "cpu", 0, ())
    left = points.schedule(50)
    assert len(left) == 50 and left[0] == 1 and left[-1] < 0.05  # the rate falls to 0
