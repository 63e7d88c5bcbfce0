"""From Python: estimators on a pair of one's own, by tables with errors and pictures."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import sketchvar
from sketchvar import CountSketch, Moments, compare, frontier, plot, variance
from sketchvar.analysis import noise
from sketchvar.analysis.explore import draw_errors, make_pair
from sketchvar.analysis.frontier.rows import frontier as frontier_of

mpl.use("agg")
FEW = ["uniform-rows", "rounding:2", "countsketch+rounding:4", "optimal-rows", "top-rows"]


@pytest.fixture(scope="module")
def pair():
    x, y = make_pair(40, 6, 5, alpha=0.2, tails=0.5, mean=1)
    return x.double(), y.double()


@pytest.fixture(scope="module")
def found(pair):
    return compare(*pair, FEW, rates=[0.5, 0.1], draws=50)


def test_variances_and_errors_are_those_of_the_library(pair, found):
    table, m = found.table.set_index(["estimator", "rate"]), Moments.of(*pair)
    assert len(table) == 9  # rounding:2 has no rate
    row = table.loc["uniform-rows", 0.1]
    assert row["variance"] == pytest.approx(float(sketchvar.UniformRows(0.1).variance(m)))
    example = noise.by_example(m.x_sq * m.y_sq, m.C)
    assert row["ratio"] == pytest.approx(row["variance"] / float(example))
    assert row["share"] == pytest.approx((4 * 6 * 8 + 8) / (40 * 6 * 8))
    seen = noise.compare([noise.pair_layer(*pair)], FEW[:1], 0.1).iloc[0]
    assert row["minibatch_example"] == pytest.approx(seen["minibatch_example"])
    alone = row["ratio"] * seen["minibatch_example_stderr"] / seen["minibatch_example"]
    assert row["ratio_stderr"] == pytest.approx(alone)


def test_draws_stand_beside_closed_forms_and_in_for_them(found):
    table = found.table.set_index(["estimator", "rate"])
    assert (table["z"].dropna().abs() < 4.5).all() and table["stderr"].gt(0).sum() > 5
    drawn = table.loc["countsketch+rounding:4"]
    assert drawn["variance"].isna().all() and drawn["measured"].gt(0).all()
    assert drawn["ratio"].tolist() == (drawn["measured"] / drawn["minibatch_example"]).tolist()
    assert table["oracle"].groupby(level=0).first()["optimal-rows"]
    assert table["biased"].groupby(level=0).first()["top-rows"]


def test_without_draws_only_what_needs_them_is_drawn(pair):
    table = compare(*pair, FEW, 0.1).table.set_index("estimator")
    assert table["measured"].dropna().index.tolist() == ["countsketch+rounding:4"]
    assert table["draws"].tolist() == [0, 0, 32, 0, 0]


def test_arrays_and_examples_of_several_rows(pair):
    arrays = compare(*(t.numpy() for t in pair), FEW[:2], 0.1).table
    assert arrays.equals(compare(*pair, FEW[:2], 0.1).table)
    x, y = (t.reshape(8, 5, -1) for t in pair)
    by_five = compare(x, y, FEW[:1], 0.1).table.iloc[0]
    assert by_five["variance"] == pytest.approx(arrays.iloc[0]["variance"])
    squares, whole = (x.mT @ y).square().sum((1, 2)), (pair[0].T @ pair[1]).square().sum()
    assert by_five["minibatch_example"] == pytest.approx(float(noise.by_example(squares, whole)))


def test_one_estimator(pair):
    row = variance(CountSketch(0.2), *pair).table.iloc[0]
    assert row["draws"] == 100 and row["rate"] == 0.2 and abs(row["z"]) < 4
    assert row["variance"] == pytest.approx(float(CountSketch(0.2).variance(Moments.of(*pair))))


def test_the_frontier_of_a_pair_is_the_frontier(pair):
    few = ["uniform-rows", "rounding:2", "rounding:4", "top-rows"]
    ours = frontier(*pair, few)
    assert ours.table.equals(frontier_of(noise.pair_layer(*pair), torch.float64, few))
    best = ours.best(0.3, 2)
    assert best["fraction"].le(0.3).all() and "top-rows" not in set(best["estimator"])
    assert best["ratio"].is_monotonic_increasing


def test_tables_are_for_people_too(found):
    assert "uniform-rows" in repr(found) and len(repr(found).splitlines()) == 10
    assert "<table" in found._repr_html_() and "bias" not in repr(found)
    assert len(found) == 9


def test_pictures_take_axes_and_leave_style_alone(pair, found):
    before = dict(mpl.rcParams)
    axes = plt.figure().subplots()
    assert found.plot(ax=axes, title="mine") is axes and axes.get_title() == "mine"
    own = found.plot()
    labels = [text.get_text() for text in own.get_legend().get_texts()]
    assert "optimal-rows (oracle)" in labels and "top-rows (biased)" in labels
    assert any("50 draws" in label for label in labels)
    errors = draw_errors(["uniform-rows", "rounding:2"], *pair, 0.5, draws=30)
    assert len(errors) == 60
    assert errors["error_sq"][:30].mean() == pytest.approx(errors["variance"][0], rel=0.6)
    drawn = plot.error_distribution(errors)
    assert drawn.get_yticklabels()[0].get_text() == "uniform-rows 0.5"
    figure = plot.matrices({"a": torch.eye(3), "b": np.ones((2, 4))}, title="two")
    assert [axes.get_title() for axes in figure.axes[:2]] == ["a", "b"]
    assert {k: v for k, v in mpl.rcParams.items()} == before
    plt.close("all")


def test_a_sketch_alone(pair):
    x, y = pair
    s, e = torch.eye(40, dtype=torch.float64), CountSketch(0.2)
    assert torch.allclose(e.sketch(x, 3), e.sketch(s, 3) @ x)
    assert torch.allclose(e.sketch(x, 3).T @ e.sketch(y, 3), sketchvar.estimate(e, x, y, 3))
    assert torch.equal(e.sketch(x.numpy(), np.int64(3)), e.sketch(x, 3))
    with pytest.raises(ValueError, match=r"needs a matrix.*\(2, 3, 4\)"):
        e.sketch(torch.ones(2, 3, 4), 0)


def test_words_for_what_is_shown(pair):
    m = Moments.of(*pair)
    assert repr(m) == "Moments(n=40, p=6, q=5, with X and Y)"
    assert repr(CountSketch(0.2).compress(pair[0], 3)) == (
        "Compressed(392 bytes of (40, 6): float64 (8, 6); seed=3)"
    )
    seen = sketchvar.empirical(CountSketch(0.2), *pair, draws=10, seed=0)
    assert "±" in repr(seen.variance) and "10 draws" in repr(seen.variance)
    assert repr(seen.mean) == "Measured((6, 5), 10 draws)"
    assert repr(sketchvar.OptimalRows(0.1, m.y_sq)) == "OptimalRows(rate=0.1, replacement=False)"
    projection = sketchvar.FeatureProjection(0.1)
    assert repr(projection) == "FeatureProjection(rate=0.1, distribution=Gaussian)"
    assert repr(noise.pair_layer(*pair)).endswith(": 40 rows of 40 examples, p=6, q=5)")
    layer = sketchvar.SketchedLinear(6, 5, CountSketch(0.2))
    found = sketchvar.audit(layer, *(each.float() for each in pair), draws=4)
    assert "weight gradient: bias² " in repr(found) and "4 draws" in repr(found)
    assert repr(sketchvar.sketch_linears(layer, CountSketch(0.1))).startswith(
        "1 layers sketched, 0 not"
    )
    assert dir(sketchvar.estimators) == sorted(sketchvar.estimators.__all__)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"rates": [1.5]}, "rates are fractions"),
        ({"estimators": ["gausian"]}, "gaussian"),
        ({"draws": 1}, "draws= must be 0, or 2"),
        ({"x": torch.ones(3, 2)}, "X and Y must be"),
    ],
)
def test_bad_input(pair, change, error):
    given = {"x": pair[0], "y": pair[1], "estimators": FEW[:1], "rates": 0.1} | change
    with pytest.raises(ValueError, match=error):
        compare(**given)


def test_a_made_pair_is_what_was_asked_for():
    alpha = [float(Moments.of(*make_pair(2000, alpha=a)).alpha) for a in (0, 0.3, 1)]
    assert alpha == pytest.approx([0, 0.3, 1], abs=0.03)
    x, _ = make_pair(2000, tails=1.0)
    assert x.norm(dim=1).log().std() == pytest.approx(1, abs=0.1)
    assert make_pair(2000, mean=3)[0].mean() == pytest.approx(3, abs=0.1)
    with pytest.raises(ValueError, match="alpha is a part"):
        make_pair(alpha=2)


def test_rows_that_are_none_are_named(found):
    with pytest.raises(ValueError, match="needs the columns ratio;"):
        plot.ratio_by_bytes(found.table.drop(columns="ratio"))
