"""Plans: what a layer can take, totals by hand, the baselines, and rows that allow no plan."""

import numpy as np
import pandas as pd
import pytest
import torch

from sketchvar.analysis.noise.table import compare
from sketchvar.analysis.plan.baselines import Uniform, list_singles
from sketchvar.analysis.plan.candidates import list_candidates
from sketchvar.analysis.plan.curves import trace_curves
from sketchvar.analysis.plan.evidence import Evidence
from sketchvar.analysis.plan.measured import measure_layers
from sketchvar.analysis.plan.objective import OBJECTIVES, SUM
from sketchvar.analysis.plan.plan import load_plan, save_plan
from sketchvar.analysis.plan.totals import sum_layers
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.tasks.stdlib_lm import Transformer
from sketchvar.estimators import CountSketch, Exact, StochasticRounding, UniformRows, parse
from sketchvar.estimators.spelling import takes_rate

F32 = torch.float32


NAMES = [
    "countsketch",
    "uniform-rows",
    "rounding:2",
    "optimal-rows",
    "top-rows",
]  # the last two are for no layer


@pytest.fixture(scope="module")
def rows():
    """Two steps of a small transformer, in batches of different sizes."""
    torch.manual_seed(0)
    model, tables = Transformer(width=24, depth=1, heads=2, length=16), []
    for step, batch in enumerate((4, 6)):
        with Probe(model, pairs=list(Probe(model).watched)) as probe:
            model(torch.randint(256, (batch, 16))).square().mean().backward()
        tables.append(
            compare(probe.read().values(), NAMES, [0.5, 0.25, 0.1], F32).assign(run="r", step=step)
        )
    return pd.concat(tables, ignore_index=True)


def candidates(rows, dtype=F32, exact=(), layers=None, objective=SUM):
    return list_candidates(measure_layers(rows, dtype, exact, objective, layers), objective)


def uniform_of(rows, exact=()):
    return Uniform.of(measure_layers(rows, F32, exact), F32)


def test_candidates_are_means_over_steps_of_what_a_layer_can_take(rows):
    table = candidates(rows)
    assert set(table["estimator"]) == {"exact", "countsketch", "uniform-rows", "rounding:2"}
    assert len(table) == 7 * (1 + 3 + 3 + 1)
    for row in table.itertuples():
        both = rows[
            (rows["layer"] == row.layer)
            & (rows["estimator"] == "uniform-rows")
            & (rows["rate"] == 0.5)
        ]
        sizes = list(zip(both["rows"], both["p"], strict=True))
        assert len(both) == 2 and sizes[0] != sizes[1]
        e = parse(row.estimator, row.rate)
        assert row.kept_bytes == np.mean([e.kept_bytes(n, p, F32) for n, p in sizes])
        assert row.x_bytes == np.mean([Exact().kept_bytes(n, p, F32) for n, p in sizes])
        same = (
            (rows["layer"] == row.layer)
            & (rows["estimator"] == row.estimator)
            & (rows["rate"] == row.rate)
        )
        ratio = rows[same]["variance"] / rows[same]["minibatch_example"]
        expected = 0 if row.estimator == "exact" else ratio.mean() / 7  # layers
        assert row.noise == pytest.approx(expected, rel=1e-12)
        first = "blocks.0.query" if row.layer in ("blocks.0.key", "blocks.0.value") else row.layer
        assert row.input_of == first


def test_totals_by_hand(rows):
    table = candidates(rows)
    same = table[(table["estimator"] == "uniform-rows") & (table["rate"] == 0.25)]
    of, counted = sum_layers(same), same[~same["layer"].isin(["blocks.0.key", "blocks.0.value"])]
    assert len(counted) == len(same) - 2
    assert of.kept_bytes == counted["kept_bytes"].sum()
    assert of.fraction == pytest.approx(
        counted["kept_bytes"].sum() / counted["x_bytes"].sum(), rel=1e-12
    )
    part = rows[(rows["estimator"] == "uniform-rows") & (rows["rate"] == 0.25)]
    assert of.ratio == pytest.approx(part["ratio"].mean(), rel=1e-9)
    raw = part["variance"].sum() / part["minibatch_example"].sum()
    assert of.ratio != pytest.approx(raw, rel=0.05)  # must fail: one layer and step decide it
    alone = sum_layers(same.assign(input_of=same["layer"]))
    assert alone.kept_bytes == same["kept_bytes"].sum() > 1.05 * of.kept_bytes


def test_rows_of_before_share_nothing(rows):
    old, new = candidates(rows.drop(columns="input_of")), candidates(rows)
    assert (old["input_of"] == old["layer"]).all()
    pd.testing.assert_frame_equal(old.drop(columns="input_of"), new.drop(columns="input_of"))
    pd.testing.assert_frame_equal(old, candidates(rows.assign(input_of=None)), check_dtype=False)


def test_layers_that_stay_exact(rows):
    table = candidates(rows, exact=["head", "blocks.*.k*"])
    alone = table.groupby("layer")["estimator"].unique().map(list)
    assert alone["head"] == alone["blocks.0.key"] == ["exact"] and len(alone["blocks.0.query"]) == 4
    with pytest.raises(
        ValueError, match=r"'haed' matches no layer; the measured ones are blocks\.0\.query, "
    ):
        candidates(rows, exact=["haed"])


def test_single_choices_leave_those_layers_exact(rows):
    table = candidates(rows, exact=["head"])
    single = next(s for s in list_singles(table) if s[:2] == ("uniform-rows", 0.25))
    uniform = uniform_of(rows, ["head"]).at(0.25)
    part = table[(table["estimator"] == "uniform-rows") & (table["rate"] == 0.25)]
    head = table[table["layer"] == "head"]
    for of in (sum_layers(pd.concat([part, head])), uniform.totals):
        assert (of.kept_bytes, of.fraction) == (single.totals.kept_bytes, single.totals.fraction)
        assert of.ratio == pytest.approx(single.totals.ratio, rel=1e-9)


@pytest.mark.parametrize("half", [False, True])
def test_what_would_keep_as_much_as_x_is_no_candidate(rows, half):
    """In half the bytes for X, a copy of half its rows in single precision is none either."""
    table = candidates(rows, torch.bfloat16 if half else F32)
    assert (table[(table["rate"] == 0.5) & (table["estimator"] == "countsketch")].empty) == half


def test_uniform_rows_at_any_rate_are_told_by_one(rows):
    """By the recorded variances at other rates, and by the estimator's own bytes."""
    for rate in (0.5, 0.25, 0.1):
        only = rows[rows["rate"] == (0.1 if rate == 0.5 else 0.5)]
        table = candidates(rows[(rows["estimator"] == "uniform-rows") & (rows["rate"] == rate)])
        expected = sum_layers(table[table["estimator"] == "uniform-rows"])
        found = uniform_of(only).at(rate).totals
        assert (found.kept_bytes, found.fraction) == (expected.kept_bytes, expected.fraction)
        assert found.ratio == pytest.approx(expected.ratio, rel=1e-9)
        assert found.ratio != pytest.approx(uniform_of(only).at(rate * 1.05).totals.ratio, rel=1e-3)


def test_uniform_rows_within_a_budget(rows):
    uniform = uniform_of(rows)
    largest, smallest = uniform.within(fraction=0.3), uniform.within(ratio=0.5)
    assert largest.totals.fraction <= 0.3 < uniform.at(largest.rate + 1e-4).totals.fraction
    assert smallest.totals.ratio <= 0.5 < uniform.at(smallest.rate - 1e-4).totals.ratio
    assert uniform.within(fraction=1e-4) is None
    assert uniform.at(1.0).totals.ratio == 0
    assert uniform_of(rows[rows["estimator"] != "uniform-rows"]) is None
    assert (
        uniform_of(rows[(rows["layer"] != "head") | (rows["estimator"] != "uniform-rows")]) is None
    )


def test_curves_fall_and_no_single_choice_is_below_the_plan(rows):
    evidence = Evidence.split(measure_layers(rows, F32), F32, hold_out=())
    table = trace_curves(evidence)
    assert table["held_out"].isna().all()
    for _, part in table.groupby("method"):
        assert part["fraction"].is_monotonic_increasing and part["ratio"].is_monotonic_decreasing
    plans = table[table["method"] == "plan"]
    for row in table[table["method"] == "best single choice"].itertuples():
        assert plans[plans["fraction"] <= row.fraction + 1e-9]["ratio"].min() <= row.ratio * (
            1 + 1e-9
        )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda r: r[r["estimator"].isin(["optimal-rows", "top-rows"])],
            "no row is of an unbiased estimator that a layer",
        ),
        (
            lambda r: r.assign(minibatch_example=float("nan")),
            "query has no minibatch variance by example at step 0; measure",
        ),
        (
            lambda r: r.assign(variance=float("inf")),
            "query has no finite variance of countsketch at step 0; measure without",
        ),
        (lambda r: r.assign(minibatch_example=0.0), "the minibatch variance is 0 in all layers"),
    ],
)
def test_rows_that_allow_no_plan(rows, change, says):
    with pytest.raises(ValueError, match=says):
        candidates(change(rows))


def test_a_saved_plan_is_loaded_as_its_estimators(tmp_path):
    lines = [
        ("a", "uniform-rows", 0.1),
        ("b", "rounding:2", 1.0),
        ("c", "exact", 1.0),
        ("d", "countsketch", 0.5),
    ]
    chosen = pd.DataFrame(lines, columns=["layer", "estimator", "rate"])
    save_plan(
        tmp_path / "p.json",
        chosen,
        {"totals": {"ratio": float("nan")}},
    )
    expected = {"a": UniformRows(0.1), "b": StochasticRounding(2), "d": CountSketch(0.5)}
    assert load_plan(tmp_path / "p.json") == expected
    assert all(takes_rate(name) == (rate < 1) for _, name, rate in lines)
    with pytest.raises(
        ValueError, match=r"no file .*q\.json; write a plan by sketchvar plan RUN --memory"
    ):
        load_plan(tmp_path / "q.json")
    for text, says in (("{}", "holds no plan"), ("{", "is not readable JSON")):
        (tmp_path / "q.json").write_text(text)
        with pytest.raises(ValueError, match=says):
            load_plan(tmp_path / "q.json")


def test_layers_that_no_converted_one_replaces_are_no_part_of_a_plan(rows):
    query = rows["layer"].str.endswith("query")
    marked = rows.assign(sketchable=~query)
    pd.testing.assert_frame_equal(candidates(marked), candidates(rows[~query]))
    with pytest.raises(ValueError, match="none of the measured layers can be converted"):
        candidates(rows.assign(sketchable=False))


def test_a_step_without_a_minibatch_variance_does_not_count_for_its_layer(rows):
    idle = rows["layer"].str.endswith("query") & (rows["step"] == rows["step"].max())
    undefined = rows.assign(minibatch_example=rows["minibatch_example"].mask(idle))
    pd.testing.assert_frame_equal(candidates(undefined), candidates(rows[~idle]))


def test_layers_that_see_one_row_of_an_example_are_left_out_unless_asked_for(rows):
    """As a classifier behind a pooler; but not where all layers do, as in an MLP."""
    last = rows["layer"] == "head"
    marked = rows.assign(rows=rows["rows"].where(~last, rows["examples"]))
    pd.testing.assert_frame_equal(candidates(marked), candidates(rows[~last]))
    assert "head" in set(candidates(marked, layers="*")["layer"])
    assert set(candidates(marked, layers="blocks.0.q*")["layer"]) == {"blocks.0.query"}
    with pytest.raises(ValueError, match=r"'b\.\*' matches no layer; the measured ones are blocks"):
        candidates(rows, layers="b.*")
    flat = rows.assign(rows=rows["examples"])
    assert set(candidates(flat)["layer"]) == set(rows["layer"])


def test_in_a_metric(rows):
    metric = OBJECTIVES["metric"]
    weight = rows["layer"].map({n: 4.0**i for i, n in enumerate(rows["layer"].unique())})
    told = rows.assign(metric_minibatch=weight, metric_ratio=0.5 + rows["rate"])
    told["metric_ratio_stderr"] = 0.1
    measured = measure_layers(told, F32, (), metric)
    part = measured["layer"].map(dict(zip(rows["layer"], weight, strict=True))) / (4**7 - 1) * 3
    same = measured["estimator"] != "exact"
    assert (measured["each"] / part)[same].tolist() == pytest.approx(0.5 + measured["rate"][same])
    assert (measured["each_stderr"] / part)[same].tolist() == pytest.approx([0.1] * same.sum())
    table = list_candidates(measured, metric)  # Σ variance / Σ minibatch variance at each step
    half = table[(table["estimator"] == "uniform-rows") & (table["rate"] == 0.5)]
    assert sum_layers(half).ratio == pytest.approx(1.0)
    for missing in (rows, rows.assign(metric_ratio=float("nan"))):
        with pytest.raises(ValueError, match="these rows have no metric_ratio; measure it"):
            measure_layers(missing, F32, (), metric)
