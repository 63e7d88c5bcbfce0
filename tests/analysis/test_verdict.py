"""Verdicts of frontiers and of costs: the sentences against numbers put in by hand."""

import math

import pandas as pd

from sketchvar.analysis.report.verdict import judge_costs, judge_frontier


def costs(**more):
    lines = [
        (20, "gaussian", 0.1, 0.1, 1.0, 2.0, 0.2, 0.5, 0.1),
        (20, "rounding:2", 1.0, 0.07, 1.0, 0.3, 0.01, 0.4, 0.1),
        (20, "gaussian", 0.1, 0.1, 30.0, 2.0, 0.2, 0.9, 0.1),
        (20, "rounding:2", 1.0, 0.07, 30.0, 0.3, 0.01, 0.2, math.nan),
        (20, "gaussian", 0.1, 0.1, math.inf, 2.0, 0.2, 0.0, 0.1),
        (10, "gaussian", 0.1, 0.1, 1.0, 9.0, 9.0, 9.0, 9.0),
    ]
    columns = ["step", "estimator", "rate", "share", "horizon", "variance_ratio"]
    columns += ["variance_ratio_stderr", "cost_ratio", "cost_ratio_stderr"]
    return pd.DataFrame(lines, columns=columns).assign(**more)


def test_costs_are_beside_variances_at_the_last_step():
    one, least, far = judge_costs(costs(oracle=False))
    assert one == (
        "After 20 updates, over 1 step, noise costs less than its variance says for 1 of 2"
        " estimators: gaussian 0.1, 0.500 ± 0.1 times the minibatch's, at 2.00 ± 0.2 times its"
        " variance."
    )
    assert least.startswith("Least costs rounding:2, 0.400 ± 0.1 times") and "7 %" in least
    assert far.startswith("Over 30 steps the least is rounding:2, 0.200 times the minibatch's")
    assert "the most gaussian 0.1, 0.900 ± 0.1 times" in far


def test_an_oracle_costs_nothing_that_can_be_had():
    told = costs()
    told["oracle"] = told["estimator"] == "rounding:2"
    assert judge_costs(told)[1].startswith("Least costs gaussian 0.1, ")


def test_a_frontier_names_the_least_for_its_bytes_beside_uniform_rows():
    columns = ["estimator", "fraction", "kept_bytes", "ratio", "low", "high", "oracle", "biased"]
    lines = [
        ("uniform-rows", 0.12, 12, 3.63, 2.15, 5.12, False, False),
        ("rounding:1", 0.12, 13, 0.5, 0.4, 0.6, False, False),
        ("optimal-rows", 0.12, 12, 0.1, 0.1, 0.1, True, False),
        ("top-rows", 0.02, 2, 0.2, 0.2, 0.2, False, True),
        ("uniform-rows", 0.02, 2, 16.8, 9.98, 23.7, False, False),
    ]
    half, quarter, least = judge_frontier(pd.DataFrame(lines, columns=columns))
    words = "X's bytes rounding:1 has the least ratio, 0.500 [0.400, 0.600], uniform-rows 3.63"
    assert f"For 25 % of {words}" in half and f"For 12.5 % of {words}" in quarter
    assert least == "For 3 % of X's bytes uniform-rows has the least ratio, 16.8 [9.98, 23.7]."
