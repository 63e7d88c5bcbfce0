"""What may be asked of a probe: spellings or estimators, one or several, and their flags."""

import matplotlib as mpl
import pandas as pd
import pytest
import torch
from matplotlib import pyplot
from torch import nn

from sketchvar.analysis.noise.table import compare
from sketchvar.analysis.probe import Probe
from sketchvar.estimators import Centered, CountSketch, OptimalRows, UniformRows

mpl.use("agg")


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


def test_a_probe_shows_its_table_and_draws_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    with Probe(model, estimators=["countsketch", "rounding:2"], rates=[0.5, 0.25]) as probe:
        for _ in range(2):
            model(torch.randn(16, 4)).square().sum().backward()
            probe.step()
    rows, wide = probe.rows(), probe.table(rate=0.5, step=0)
    assert list(wide.index) == ["bytes kept", "0", "2", "median", "all layers", "effective batch"]
    at = rows[(rows["step"] == 0) & (rows["rate"] == 0.5)].set_index("layer")
    assert wide.loc[["0", "2"], "countsketch"].to_dict() == at["ratio"].to_dict()
    kept = at["kept_bytes"].sum() / at["x_bytes"].sum()
    assert wide.loc["bytes kept", "countsketch"] == pytest.approx(kept)
    axes = probe.plot(rate=0.5, title="mine")
    assert axes.get_title() == "mine" and len(axes.containers) == 2
    with pytest.raises(ValueError, match="step 7 was not measured; measured were 0, 1"):
        probe.table(step=7)
    pyplot.close("all")
