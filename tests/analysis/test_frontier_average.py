"""Averages of a frontier over layers, the best of it, and lines that coincide."""

import pandas as pd
import pytest

from sketchvar.analysis.frontier.best import (
    BASELINE,
    average,
    find_best,
    find_envelope,
    merge_lines,
)


def lines(*values):
    """A frontier by hand: (layer, estimator, budget, kept bytes of 100, ratio)."""
    columns = ["layer", "estimator", "budget", "kept_bytes", "ratio"]
    table = pd.DataFrame(values, columns=columns).assign(
        step=0, line=lambda t: t["estimator"], family="row sketches"
    )
    table = table.assign(fraction=table["kept_bytes"] / 100, stderr=0.0, minibatch_example=1.0)
    return table.assign(
        oracle=table["estimator"] == "optimal-rows",
        biased=table["estimator"] == "top-rows",
        takes_rate=table["budget"].notna(),
    )


def test_average_is_the_median_over_layers_and_leaves_out_what_does_not_fit_everywhere():
    rows = lines(
        ("a", "haar", 0.5, 40, 1.0), ("b", "haar", 0.5, 50, 2.0), ("c", "haar", 0.5, 50, 9.0)
    )
    rows = pd.concat([rows, lines(("a", "srht", 0.5, 40, 1.0))])
    (row,) = average(rows).to_dict("records")
    assert (row["estimator"], row["ratio"], row["count"]) == ("haar", 2.0, 3)
    assert (row["low"], row["high"]) == (1.5, 5.5)
    assert row["kept_bytes"] == 140 and row["fraction"] == pytest.approx(140 / 300)


def test_best_names_no_oracle_no_biased_and_no_twin():
    table = average(
        lines(
            ("a", "rounding:4", float("nan"), 20, 3.0),
            ("a", "uniform-rows+rounding:4", 0.25, 20, 3.0),
            ("a", "haar", 0.25, 25, 4.0),
            ("a", "haar", 0.5, 50, 1.0),
            ("a", "optimal-rows", 0.25, 25, 0.1),
            ("a", "top-rows", 0.25, 25, 0.2),
        )
    )
    assert list(find_best(table, 0.25)["estimator"]) == ["rounding:4", "haar"]
    assert list(find_best(table, 0.5)["estimator"]) == ["haar", "rounding:4"]
    assert find_best(table, 0.1).empty
    assert list(find_envelope(table)["ratio"]) == [3.0, 1.0]


def test_lines_that_coincide_become_one_and_the_baseline_stays_alone():
    names = ("haar", "srht", "gaussian", BASELINE)
    ratios = ((1.0, 2.0), (1.01, 2.04), (1.0, 2.2), (1.0, 2.0))
    made = [
        ("a", n, b, 50, r)
        for n, pair in zip(names, ratios, strict=True)
        for b, r in zip((0.5, 0.2), pair, strict=True)
    ]
    assert list(dict.fromkeys(merge_lines(lines(*made))["line"])) == [
        "haar, srht",
        "gaussian",
        BASELINE,
    ]
