"""Pooled intervals: against paired t tests, least squares and simulation; Holm and the slowdown."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel

from sketchvar.analysis.sweep.pooled import Finals, holm
from sketchvar.analysis.sweep.slowdown import slow_down

NAMES = [("exact", 1.0, 4), ("exact", 1.0, 16), ("gaussian", 0.5, 16), ("srht", 0.5, 16)]


def made(values) -> Finals:
    index = pd.MultiIndex.from_tuples(NAMES[: len(values)], names=["estimator", "rate", "batch"])
    return Finals(pd.DataFrame(values, index))


def random_finals(methods: int, seed: int = 0, seeds: int = 4) -> Finals:
    return made(np.random.default_rng(seed).normal(size=(methods, seeds)))


def test_two_methods_pooled_are_a_paired_t_test():
    two = random_finals(2)
    found = two.differ(*two.table.index)
    right = ttest_rel(*two.table.to_numpy())
    low, high = right.confidence_interval(0.95)
    assert found.p == pytest.approx(right.pvalue)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def solve(values: np.ndarray, between: list[float]) -> tuple[float, float, int]:
    """A contrast of methods and its standard error by the normal equations of the known cells."""
    places = [(m, s) for m in range(4) for s in range(4) if np.isfinite(values[m, s])]
    design = np.array([[*np.eye(4)[m], *np.eye(4)[s][1:]] for m, s in places])
    known = np.array([values[place] for place in places])
    solution, (rest,), *_ = np.linalg.lstsq(design, known)
    w, df = np.array([*between, 0, 0, 0]), len(known) - 7
    return float(w @ solution), math.sqrt(rest / df * w @ np.linalg.inv(design.T @ design) @ w), df


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_a_contrast_is_that_of_least_squares(missing):
    """Also where runs are missing. Batch 8 lies half way from 4 to 16."""
    values = random_finals(4).table.to_numpy().copy()
    for place in [(0, 1), (2, 0), (3, 3)][:missing]:
        values[place] = math.nan
    four = made(values)
    for found, between in (
        (four.differ_from_exact(NAMES[2], 8), [-0.5, -0.5, 1, 0]),
        (four.differ(NAMES[2], NAMES[3]), [0, 0, 1, -1]),
    ):
        mean, error, df = solve(values, between)
        assert four.df == df == 9 - missing
        assert found.mean == pytest.approx(mean)
        assert found.half == pytest.approx(student.ppf(0.975, df) * error)
        assert found.half != pytest.approx(student.ppf(0.975, 3) * error, rel=0.05)  # one method's
        assert found.p == pytest.approx(2 * student.sf(abs(mean) / error, df))


def test_an_interval_covers_as_often_as_it_says():
    """Of 1000 studies of 4 methods and 3 seeds that differ in nothing but noise and seeds."""
    draw, covered, narrow = np.random.default_rng(1), 0, 0
    for _ in range(1000):
        finals = made(draw.normal(size=(4, 3)) + 10 * draw.normal(size=(1, 3)))
        found = finals.differ(NAMES[2], NAMES[1])
        covered += abs(found.mean) <= found.half
        normal = 1.96 / student.ppf(0.975, finals.df)
        narrow += abs(found.mean) <= normal * found.half
    error = 4.5 * math.sqrt(0.95 * 0.05 / 1000)  # a false alarm in 150,000
    assert abs(covered / 1000 - 0.95) < error
    assert abs(narrow / 1000 - 0.95) > error  # must fail: the normal interval


def test_one_seed_has_no_interval():
    one = random_finals(3, seeds=1)
    found = one.differ(NAMES[2], NAMES[1])
    assert found.mean == pytest.approx(one.table.iloc[2, 0] - one.table.iloc[1, 0])
    assert math.isnan(found.half) and math.isnan(found.p) and math.isnan(one.detectable())


@pytest.mark.parametrize("count", [1, 9])
def test_what_is_detectable_is_seen_as_often_as_the_power_says(count):
    """By drawing differences and residuals; must fail: nine tenths of it."""
    finals = random_finals(4)
    least, df = finals.detectable(count), finals.df
    draw, scale = np.random.default_rng(0), finals.sd * math.sqrt(2 / 4)
    noise = draw.normal(size=40_000)
    spread = np.sqrt(draw.chisquare(df, 40_000) / df)
    beyond = student.isf(0.05 / count / 2, df)

    def seen(effect: float) -> float:
        return float(np.mean(np.abs(effect / scale + noise) / spread > beyond))

    error = 4.5 * math.sqrt(0.8 * 0.2 / 40_000)
    assert abs(seen(least) - 0.8) < error
    assert abs(seen(0.9 * least) - 0.8) > error
    assert abs(seen(0) - 0.05 / count) < error


def test_holm_as_in_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, math.nan, 0.04]) == pytest.approx([0.02, math.nan, 0.04], nan_ok=True)


def test_a_slowdown_is_in_how_many_updates_exact_training_comes_as_far():
    curve = pd.Series([4.0, 3.0, 2.5], index=[0, 100, 200])
    assert slow_down(curve, 2.75) == pytest.approx(200 / 150)
    assert slow_down(curve, 3.5) == pytest.approx(4)
    assert slow_down(curve, 2.5) == slow_down(curve, 2.4) == 1
    assert slow_down(curve, 4.5) == math.inf and math.isnan(slow_down(curve, math.nan))
