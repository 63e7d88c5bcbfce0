"""What may be asked of a probe: spellings or estimators, one or several, and their flags."""

import pandas as pd
import pytest
import torch
from torch import nn

from sketchvar.analysis.noise.table import compare
from sketchvar.analysis.probe import Probe
from sketchvar.estimators import Centered, CountSketch, OptimalRows, UniformRows


def table(**asked):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    with Probe(model, pairs=["0"], **asked) as probe:
        model(torch.randn(16, 4)).square().sum().backward()
        layers = probe.read()
        probe.step()
    return probe.rows(), layers


def test_one_spelling_or_one_object_is_as_good_as_lists():
    rows, layers = table(estimators=["countsketch"], rates=[0.5])
    for asked in (
        {"estimators": "countsketch", "rates": 0.5},
        {"estimators": "countsketch:0.5"},
        {"estimators": CountSketch(0.5)},
        {"estimators": [CountSketch(0.5)]},
    ):
        pd.testing.assert_frame_equal(table(**asked)[0], rows)
    compared = compare(layers.values(), CountSketch(0.5))
    pd.testing.assert_frame_equal(compared, rows[list(compared)])


def test_flags_are_columns_and_an_oracle_is_told_layer_by_layer():
    rows, layers = table(estimators=["optimal-rows", "rounding:2", "top-rows"], rates=0.25)
    flags = rows.drop_duplicates("estimator").set_index("estimator")
    assert flags["oracle"].to_dict() == {
        "optimal-rows": True,
        "rounding:2": False,
        "top-rows": False,
    }
    assert list(flags["biased"]) == [False, False, True]
    assert list(flags["takes_rate"]) == [True, False, True]
    for name, layer in layers.items():
        variance = OptimalRows(0.25, layer.moments.y_sq).variance(layer.moments)
        row = rows[(rows["layer"] == name) & (rows["estimator"] == "optimal-rows")].iloc[0]
        assert row["variance"] == pytest.approx(float(variance), rel=1e-12)


def test_an_object_that_needs_the_pair_has_it():
    rows, layers = table(estimators=Centered(UniformRows(0.25)))
    assert list(rows["estimator"]) == ["centered(uniform-rows)"] * 2
    expected = Centered(UniformRows(0.25)).variance(layers["0"].moments)
    assert rows["variance"][0] == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"estimators": ["gaussian:0.1+rounding:4"]}, r"^gaussian:0\.1\+rounding:4 has no closed"),
        ({"estimators": "count-sketch", "rates": 0.5}, "did you mean 'countsketch'"),
        ({"estimators": "countsketch"}, r"needs rate; write countsketch:0\.1"),
        ({"rates": 0.5}, "rates= needs estimators="),
    ],
)
def test_what_cannot_be_compared(asked, says):
    with pytest.raises(ValueError, match=says):
        table(**asked)
