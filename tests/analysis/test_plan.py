"""Plans: the integer programme against every choice there is, its totals by hand, the baselines,
and what layers do.
"""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from sketchvar.analysis.noise.table import compare
from sketchvar.analysis.plan.baselines import Uniform, find_best_single, list_singles, trace_curves
from sketchvar.analysis.plan.candidates import list_candidates
from sketchvar.analysis.plan.plan import load_plan, save_plan
from sketchvar.analysis.plan.programme import minimize_bytes, minimize_noise
from sketchvar.analysis.plan.totals import Totals, sum_layers
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


def made(seed, readers, choices=4):
    """A table of candidates at random; each of ``readers`` is a layer that reads the same as the
    others of its name.
    """
    random, lines = np.random.default_rng(seed), []
    sizes = {reader: random.integers(50, 200) for reader in readers}
    for i, reader in enumerate(readers):
        layer, first = f"{reader}{i}", f"{reader}{readers.index(reader)}"
        minibatch = random.lognormal()
        lines.append((layer, first, "exact", 1.0, sizes[reader], sizes[reader], 0.0, minibatch))
        for j in range(1, choices):
            kept = sizes[reader] * j // choices
            lines.append(
                (
                    layer,
                    first,
                    "e",
                    j / choices,
                    kept,
                    sizes[reader],
                    random.lognormal() / j,
                    minibatch,
                )
            )
    columns = [
        "layer",
        "input_of",
        "estimator",
        "rate",
        "kept_bytes",
        "x_bytes",
        "variance",
        "minibatch",
    ]
    return pd.DataFrame(lines, columns=columns)


def every_plan(table):
    """(kept bytes, fraction, ratio) of all there are, in plain Python; a copy is counted once for
    all who share it.
    """
    lines = [list(part.itertuples()) for _, part in table.groupby("layer", sort=False)]
    whole = sum({line[0].input_of: line[0].x_bytes for line in lines}.values())
    noise = sum(line[0].minibatch for line in lines)
    for plan in product(*lines):
        kept = sum(
            {(row.input_of, row.estimator, row.rate): row.kept_bytes for row in plan}.values()
        )
        yield kept, kept / whole, sum(row.variance for row in plan) / noise


@pytest.mark.parametrize("readers", ["abcde", "aaabc", "aabbb"])
@pytest.mark.parametrize("seed", range(2))
def test_the_programme_is_the_best_of_all_plans(readers, seed):
    table = made(seed, readers)
    plans = np.array(list(every_plan(table)))
    for budget in (0.3, 0.5, 0.8, 1.0, min(float(np.median(plans[:, 1])), 1)):
        chosen = minimize_noise(table, budget)
        assert list(chosen["layer"]) == list(dict.fromkeys(table["layer"]))
        fits = plans[plans[:, 1] <= budget]
        assert sum_layers(chosen).fraction <= budget
        assert sum_layers(chosen).ratio == pytest.approx(fits[:, 2].min(), rel=1e-9, abs=1e-12)
    for ratio in (0.0, 0.3, 1.0, float(np.median(plans[:, 2]))):
        of = sum_layers(minimize_bytes(table, ratio))
        fits = plans[plans[:, 2] <= ratio]
        assert of.ratio <= ratio
        assert of.kept_bytes == fits[:, 0].min()
        assert of.ratio == pytest.approx(
            fits[fits[:, 0] == of.kept_bytes, 2].min(), rel=1e-9, abs=1e-12
        )


def test_must_fail_a_plan_that_knows_nothing_of_sharing():
    """In most of these it keeps more bytes, counted rightly, than the best of all plans."""
    worse = 0
    for seed in range(4):
        table = made(seed, "aaabb")
        least = min(kept for kept, _, ratio in every_plan(table) if ratio <= 0.5)
        blind = minimize_bytes(table.assign(input_of=table["layer"]), 0.5)
        assert sum_layers(minimize_bytes(table, 0.5)).kept_bytes == least
        worse += sum_layers(table.loc[blind.index]).kept_bytes > 1.05 * least
    assert worse > 1


def test_a_plan_of_many_layers_is_within_its_budget_and_no_worse_than_single_choices():
    table = made(0, [f"l{i}." for i in range(30)], choices=8)
    found = list_singles(table)
    for budget in (0.3, 0.6):
        of, single = sum_layers(minimize_noise(table, budget)), find_best_single(found, budget)
        assert (
            of.fraction <= budget
            and of.ratio < single.totals.ratio
            and single.totals.fraction <= budget
        )
        back = sum_layers(minimize_bytes(table, of.ratio))
        assert back.fraction == pytest.approx(of.fraction, rel=1e-9) and back.ratio <= of.ratio
        other = find_best_single(found, ratio=single.totals.ratio)
        assert (
            other.totals.fraction <= single.totals.fraction
            and other.totals.ratio <= single.totals.ratio
        )


def test_a_budget_that_nothing_fits_says_the_least_possible():
    table = made(1, "aab")
    with pytest.raises(
        ValueError,
        match=r"no plan keeps at most 0\.01 of X's bytes; the least possible is (0\.\d+)",
    ) as e:
        minimize_noise(table, 0.01)
    least = float(str(e.value).split("possible is ")[1].split(":")[0])
    assert sum_layers(minimize_noise(table, least)).fraction == min(
        fraction for _, fraction, _ in every_plan(table)
    )


@pytest.mark.parametrize("budget", [0, -1, 1.01, 25, float("nan"), float("inf")])
def test_memory_out_of_range(budget):
    with pytest.raises(
        ValueError, match=r"a memory budget is a fraction of X's bytes, 0 to 1, got .*; write 0\.25"
    ):
        minimize_noise(made(0, "ab"), budget)


@pytest.mark.parametrize("budget", [-0.1, float("nan"), float("inf")])
def test_noise_out_of_range(budget):
    with pytest.raises(
        ValueError, match=r"a noise budget is a ratio to the minibatch variance, 0 or more, got "
    ):
        minimize_bytes(made(0, "ab"), budget)


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


def test_candidates_are_means_over_steps_of_what_a_layer_can_take(rows):
    table = list_candidates(rows, F32)
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
        assert row.minibatch == pytest.approx(both["minibatch_example"].mean(), rel=1e-12)
        same = (
            (rows["layer"] == row.layer)
            & (rows["estimator"] == row.estimator)
            & (rows["rate"] == row.rate)
        )
        expected = 0 if row.estimator == "exact" else rows[same]["variance"].mean()
        assert row.variance == pytest.approx(expected, rel=1e-12)
        first = "blocks.0.query" if row.layer in ("blocks.0.key", "blocks.0.value") else row.layer
        assert row.input_of == first


def test_totals_by_hand(rows):
    table = list_candidates(rows, F32)
    same = table[(table["estimator"] == "uniform-rows") & (table["rate"] == 0.25)]
    of, counted = sum_layers(same), same[~same["layer"].isin(["blocks.0.key", "blocks.0.value"])]
    assert len(counted) == len(same) - 2
    assert of.kept_bytes == counted["kept_bytes"].sum()
    assert of.fraction == pytest.approx(
        counted["kept_bytes"].sum() / counted["x_bytes"].sum(), rel=1e-12
    )
    part = rows[(rows["estimator"] == "uniform-rows") & (rows["rate"] == 0.25)]
    assert of.ratio == pytest.approx(
        part["variance"].sum() / part["minibatch_example"].sum(), rel=1e-12
    )
    assert of.batch_fraction == 1 / (1 + of.ratio)
    alone = sum_layers(same.assign(input_of=same["layer"]))
    assert alone.kept_bytes == same["kept_bytes"].sum() > 1.05 * of.kept_bytes


def test_rows_of_before_share_nothing(rows):
    old, new = list_candidates(rows.drop(columns="input_of"), F32), list_candidates(rows, F32)
    assert (old["input_of"] == old["layer"]).all()
    pd.testing.assert_frame_equal(old.drop(columns="input_of"), new.drop(columns="input_of"))
    pd.testing.assert_frame_equal(
        old, list_candidates(rows.assign(input_of=None), F32), check_dtype=False
    )


def test_layers_that_stay_exact(rows):
    table = list_candidates(rows, F32, exact=["head", "blocks.*.k*"])
    alone = table.groupby("layer")["estimator"].unique().map(list)
    assert alone["head"] == alone["blocks.0.key"] == ["exact"] and len(alone["blocks.0.query"]) == 4
    with pytest.raises(
        ValueError, match=r"'haed' matches no layer; the measured ones are blocks\.0\.query, "
    ):
        list_candidates(rows, F32, exact=["haed"])


def test_single_choices_leave_those_layers_exact(rows):
    table = list_candidates(rows, F32, exact=["head"])
    single = next(s for s in list_singles(table) if s[:2] == ("uniform-rows", 0.25))
    uniform = Uniform.of(rows, F32, exact=["head"]).at(0.25)
    part = table[(table["estimator"] == "uniform-rows") & (table["rate"] == 0.25)]
    head = table[table["layer"] == "head"]
    for of in (sum_layers(pd.concat([part, head])), uniform.totals):
        assert (of.kept_bytes, of.fraction) == (single.totals.kept_bytes, single.totals.fraction)
        assert of.ratio == pytest.approx(single.totals.ratio, rel=1e-9)


@pytest.mark.parametrize("half", [False, True])
def test_what_would_keep_as_much_as_x_is_no_candidate(rows, half):
    """In half the bytes for X, a copy of half its rows in single precision is none either."""
    table = list_candidates(rows, torch.bfloat16 if half else F32)
    assert (table[(table["rate"] == 0.5) & (table["estimator"] == "countsketch")].empty) == half


def test_uniform_rows_at_any_rate_are_told_by_one(rows):
    """By the recorded variances at other rates, and by the estimator's own bytes."""
    for rate in (0.5, 0.25, 0.1):
        only = rows[rows["rate"] == (0.1 if rate == 0.5 else 0.5)]
        table = list_candidates(
            rows[(rows["estimator"] == "uniform-rows") & (rows["rate"] == rate)], F32
        )
        expected = sum_layers(table[table["estimator"] == "uniform-rows"])
        found = Uniform.of(only, F32).at(rate).totals
        assert (found.kept_bytes, found.fraction) == (expected.kept_bytes, expected.fraction)
        assert found.ratio == pytest.approx(expected.ratio, rel=1e-9)
        assert found.ratio != pytest.approx(
            Uniform.of(only, F32).at(rate * 1.05).totals.ratio, rel=1e-3
        )


def test_uniform_rows_within_a_budget(rows):
    uniform = Uniform.of(rows, F32)
    largest, smallest = uniform.within(fraction=0.3), uniform.within(ratio=0.5)
    assert largest.totals.fraction <= 0.3 < uniform.at(largest.rate + 1e-4).totals.fraction
    assert smallest.totals.ratio <= 0.5 < uniform.at(smallest.rate - 1e-4).totals.ratio
    assert uniform.within(fraction=1e-4) is None
    assert uniform.at(1.0).totals.ratio == 0
    assert Uniform.of(rows[rows["estimator"] != "uniform-rows"], F32) is None
    assert (
        Uniform.of(rows[(rows["layer"] != "head") | (rows["estimator"] != "uniform-rows")], F32)
        is None
    )


def test_curves_fall_and_no_single_choice_is_below_the_plan(rows):
    table = trace_curves(list_candidates(rows, F32), Uniform.of(rows, F32))
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
        list_candidates(change(rows), F32)


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
        chosen.assign(input_of="a", kept_bytes=1, x_bytes=2, variance=1.0, minibatch=2.0),
        {},
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


def test_the_effective_batch_fraction():
    assert Totals(1, 1, 3.0).batch_fraction == 0.25


def test_layers_that_no_converted_one_replaces_are_no_part_of_a_plan(rows):
    query = rows["layer"].str.endswith("query")
    marked = rows.assign(sketchable=~query)
    pd.testing.assert_frame_equal(list_candidates(marked, F32), list_candidates(rows[~query], F32))
    with pytest.raises(ValueError, match="none of the measured layers can be converted"):
        list_candidates(rows.assign(sketchable=False), F32)


def test_a_step_without_a_minibatch_variance_does_not_count_for_its_layer(rows):
    idle = rows["layer"].str.endswith("query") & (rows["step"] == rows["step"].max())
    undefined = rows.assign(minibatch_example=rows["minibatch_example"].mask(idle))
    pd.testing.assert_frame_equal(
        list_candidates(undefined, F32), list_candidates(rows[~idle], F32)
    )
