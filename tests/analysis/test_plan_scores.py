"""Scores of plans by hand, on steps that are held out."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_ind

from sketchvar.analysis.plan.candidates import list_candidates
from sketchvar.analysis.plan.evidence import Evidence
from sketchvar.analysis.plan.objective import OBJECTIVES, SUM
from sketchvar.analysis.plan.programme import minimize_noise
from sketchvar.analysis.plan.score import Score, score_steps, sum_up
from sketchvar.analysis.plan.totals import sum_layers

F32 = torch.float32


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
