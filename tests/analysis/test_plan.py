"""Plans: the integer programme against every choice there is, its totals by hand, the baselines,
and what layers do.
"""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_ind

from sketchvar.analysis.noise.table import compare
from sketchvar.analysis.plan.baselines import Uniform, find_best_single, list_singles
from sketchvar.analysis.plan.candidates import list_candidates
from sketchvar.analysis.plan.curves import trace_curves
from sketchvar.analysis.plan.evidence import Evidence
from sketchvar.analysis.plan.measured import measure_layers
from sketchvar.analysis.plan.objective import OBJECTIVES, SUM
from sketchvar.analysis.plan.plan import load_plan, save_plan
from sketchvar.analysis.plan.programme import minimize_bytes, minimize_noise
from sketchvar.analysis.plan.score import Score, score_steps, sum_up
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


def made(seed, readers, choices=4):
    """A table of candidates at random; each of ``readers`` is a layer that reads the same as the
    others of its name.
    """
    random, lines = np.random.default_rng(seed), []
    sizes = {reader: random.integers(50, 200) for reader in readers}
    for i, reader in enumerate(readers):
        layer, first = f"{reader}{i}", f"{reader}{readers.index(reader)}"
        lines.append((layer, first, "exact", 1.0, sizes[reader], sizes[reader], 0.0))
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
                    random.lognormal() / j / len(readers),
                )
            )
    columns = [
        "layer",
        "input_of",
        "estimator",
        "rate",
        "kept_bytes",
        "x_bytes",
        "noise",
    ]
    return pd.DataFrame(lines, columns=columns)


def every_plan(table, total=sum):
    """(kept bytes, fraction, ratio) of all there are, in plain Python; a copy is counted once for
    all who share it.
    """
    lines = [list(part.itertuples()) for _, part in table.groupby("layer", sort=False)]
    whole = sum({line[0].input_of: line[0].x_bytes for line in lines}.values())
    for plan in product(*lines):
        kept = sum(
            {(row.input_of, row.estimator, row.rate): row.kept_bytes for row in plan}.values()
        )
        yield kept, kept / whole, total(row.noise for row in plan)


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


@pytest.mark.parametrize("readers", ["abcde", "aabbb"])
def test_the_least_largest_noise_of_a_layer(readers):
    """Then, among those, the least total."""
    table = made(3, readers)
    plans = np.array(list(every_plan(table, max)))
    totals = np.array([total for *_, total in every_plan(table)])
    for budget in (0.3, 0.5, 0.8, 1.0):
        of = minimize_noise(table, budget, largest=True)
        fits = plans[:, 1] <= budget
        least = plans[fits, 2].min()
        assert sum_layers(of).fraction <= budget
        assert sum_layers(of, largest=True).ratio == pytest.approx(least, abs=1e-12)
        same = totals[fits & (plans[:, 2] <= least)]
        assert sum_layers(of).ratio == pytest.approx(same.min(), abs=1e-9)
        blind = minimize_noise(table, budget)  # must fail: another plan where there is room
        assert sum_layers(blind).ratio <= sum_layers(of).ratio + 1e-12
    for ratio in (0.1, 0.3):
        of = minimize_bytes(table, ratio, largest=True)
        assert sum_layers(of, largest=True).ratio <= ratio
        assert sum_layers(of).kept_bytes == plans[plans[:, 2] <= ratio, 0].min()


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


# held out, errors, objectives


def scored(seed=0, steps=(0, 1, 2, 3, 4), layers=("a", "b", "c")):
    """A table of ``measure_layers`` at random."""
    random = np.random.default_rng(seed)
    lines = [
        (s, n, n, 8, 4, e, r, 10 * r, 10.0, random.lognormal() * (e != "exact"), 0.1 * (r < 1))
        for s in steps
        for n in layers
        for e, r in (("exact", 1.0), ("e", 0.5), ("e", 0.25))
    ]
    columns = "step layer input_of rows p estimator rate kept_bytes x_bytes each each_stderr"
    return pd.DataFrame(lines, columns=columns.split())


def choice(*rates):
    names = ["exact" if rate == 1 else "e" for rate in rates]
    return pd.DataFrame({"layer": list("abc"), "estimator": names, "rate": rates})


def test_a_score_by_hand():
    """The total of each step, its error if layers err one way, and over steps by their spread."""
    measured, plan = scored(), choice(0.5, 0.25, 1.0)
    steps = score_steps(plan, measured, SUM)
    at = measured.set_index(["step", "layer", "rate"])["each"]
    for row in steps.itertuples():
        two = [at[row.step, "a", 0.5], at[row.step, "b", 0.25]]
        assert row.ratio == pytest.approx(sum(two) / 3)
        assert row.stderr == pytest.approx(0.2 / 3)
        assert (row.median, row.largest) == (sorted([0, *two])[1], max(two))
        assert row.layer == "ab"[int(np.argmax(two))]
    total = sum_up(steps, SUM)
    assert total == pytest.approx((steps["ratio"].mean(), steps["ratio"].std() / 5**0.5, 5))
    alike = sum_up(steps.assign(ratio=0.7), SUM)  # by chance: then their own errors are more
    assert alike == pytest.approx((0.7, 0.2 / 3 / 5**0.5, 5))
    assert sum_up(steps[:1], SUM) == pytest.approx((steps["ratio"][0], 0.2 / 3, 1))
    assert np.isnan(sum_up(steps[:0], SUM)[:2]).all()
    worst = sum_up(score_steps(plan, measured, OBJECTIVES["largest"]), OBJECTIVES["largest"])
    assert worst == pytest.approx((steps["largest"].max(), 0.1, 1))
    unknown = score_steps(plan, measured.assign(each_stderr=np.nan), SUM)
    assert np.isnan(sum_up(unknown[:1], SUM).stderr) and sum_up(unknown, SUM) == total


def test_a_total_is_the_mean_of_its_steps():
    """Whatever scale gradients have, and for layers that idle at some steps."""
    measured = scored()
    measured = measured[(measured["layer"] != "c") | (measured["step"] > 1)]
    plan = choice(0.5, 0.25, 0.5)
    for name in ("sum", "largest"):
        table = list_candidates(measured, OBJECTIVES[name])
        chosen = table.merge(plan, on=["layer", "estimator", "rate"])
        of = sum_layers(chosen, OBJECTIVES[name].largest)
        score = sum_up(score_steps(plan, measured, OBJECTIVES[name]), OBJECTIVES[name])
        assert of.ratio == pytest.approx(score.ratio)


def test_every_second_step_is_held_out():
    measured = scored()
    assert Evidence.split(measured, F32).steps == ([0, 2, 4], [1, 3])
    assert Evidence.split(measured, F32, hold_out=(4,)).steps == ([0, 1, 2, 3], [4])
    assert Evidence.split(scored(steps=(7,)), F32).steps == ([7], [])
    for wrong in ((5,), (0, 1, 2, 3, 4)):
        with pytest.raises(ValueError, match=r"must be some of 0 1 2 3 4, not all, got"):
            Evidence.split(measured, F32, hold_out=wrong)


def test_what_is_chosen_knows_nothing_of_the_steps_held_out():
    measured = scored()
    other = measured.assign(each=measured["each"].where(measured["step"] % 2 == 0, 9.0))
    first, second = (Evidence.split(each, F32) for each in (measured, other))
    pd.testing.assert_frame_equal(first.table, second.table)
    plan = minimize_noise(first.table, 0.4)
    one, two = first.total(plan), second.total(plan)
    assert (one["ratio"], one["ratio_stderr"]) == (two["ratio"], two["ratio_stderr"])
    assert one["held_out"] != two["held_out"]


def test_the_difference_of_chosen_and_held_out_is_that_of_welch():
    steps = score_steps(choice(0.5, 0.25, 0.5), scored(2, range(9)), SUM).assign(stderr=np.nan)
    first, second = steps["ratio"][::2], steps["ratio"][1::2]
    more, half = sum_up(steps[::2], SUM).differ(sum_up(steps[1::2], SUM))
    right = ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    assert (more - half, more + half) == pytest.approx(tuple(right))
    one, other = Score(1.0, 0.3), Score(2.0, 0.4)  # of a step each, with errors of their own
    assert one.differ(other) == pytest.approx((1.0, 1.96 * 0.5), rel=1e-3)
    assert np.isnan(one.differ(Score(2.0, np.nan))[1])


def test_the_interval_covers_the_difference_of_few_steps():
    """Of 200 redrawn runs of six steps alike, within it in 95 %; must fail: 1.5 standard
    errors, and steps that are 30 times as noisy.
    """
    within, narrow, apart = 0, 0, 0
    for seed in range(200):
        steps = score_steps(choice(0.5, 0.25, 0.5), scored(seed, range(6)), SUM)
        steps = steps.assign(stderr=np.nan, ratio=np.log(steps["ratio"]))
        worse = steps.assign(ratio=steps["ratio"] + np.where(steps["step"] % 2, np.log(30), 0))
        for table in (steps, worse):
            first, second = (sum_up(table[i::2], SUM) for i in (0, 1))
            more, half = first.differ(second)
            within += abs(more) <= half and table is steps
            narrow += abs(more) <= 1.5 * np.hypot(first.stderr, second.stderr) and table is steps
            apart += more > half and table is worse
    least = 0.95 * 200 - 4 * (200 * 0.95 * 0.05) ** 0.5
    assert narrow < least < within
    assert apart > 0.8 * 200


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
