"""Public pictures: rows in, Axes out, no torch, no rcParams changed, and the same whoever saves
them; what was not measured is an error that names what was.
"""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sketchvar import plot
from sketchvar.analysis import plot as pictures
from sketchvar.analysis import style
from sketchvar.analysis.frontier.best import average
from sketchvar.analysis.noise.scale import noise_scale
from sketchvar.analysis.picture import fold
from sketchvar.analysis.records import read_rows

mpl.use("agg")
ROOT = Path(__file__).parents[2]
DATA = ROOT / "data"
CURVES = {"method": ["plan", "plan"], "fraction": [0.1, 0.5], "ratio": [2.0, 0.5]}


NOISES = ("gaussian", 0.1), ("rounding:2", 1.0)


def costs(step=(10, 20), horizons=(1, 10, np.inf)):
    """Rows as ``cost.parquet`` has them."""
    lines = [
        (s, name, rate, 0.1 + i, t, 2.0 - i, 0.2, 0.5 / (1 + i), 0.1)
        for s in step
        for i, (name, rate) in enumerate(NOISES)
        for t in horizons
    ]
    columns = [
        "step",
        "estimator",
        "rate",
        "share",
        "horizon",
        "variance_ratio",
        "variance_ratio_stderr",
    ]
    return pd.DataFrame(lines, columns=[*columns, "cost_ratio", "cost_ratio_stderr"])


def coherent():
    """Rows as ``coherence.parquet`` has them."""
    lines = [(20, name, rate, seeds, 0.5, 0.1) for name, rate in NOISES for seeds in ("own", "one")]
    columns = ["step", "noise", "rate", "seeds", "coherence", "coherence_stderr"]
    return pd.DataFrame(lines, columns=columns)


def effective():
    """Rows as ``effective.parquet`` has them."""
    lines = [(20, *noise, 1.0, True, 0.5, 0.3, 0.6, 0.2, 0.1, 0.4, 0.5) for noise in NOISES]
    columns = ["step", "estimator", "rate", "fraction", "tuned", "effective", "low", "high"]
    columns += ["by_variance", "by_metric", "by_cost", "by_both"]
    whole = (20, "exact", 1.0, 1.0, True, 1.0, 1.0, 1.0, *lines[0][8:])
    return pd.DataFrame([*lines, whole], columns=columns)


def one_draw():
    """A row as ``draw_errors`` has them."""
    line = {"estimator": "gaussian", "rate": 0.1, "error_sq": 2.0, "variance": 1.5, "grad_sq": 3.0}
    return pd.DataFrame([line])


def compared():
    """A row as ``compare`` has them."""
    line = {"estimator": "gaussian", "share": 0.1, "ratio": 2.0, "ratio_stderr": 0.1}
    return pd.DataFrame([line | {"minibatch_example": 1.0, "oracle": False, "biased": False}])


@cache
def few(file, layers=3):
    rows = read_rows(DATA / file)
    return rows[rows["layer"].isin(list(rows["layer"].unique())[:layers])]


def scales():
    """What a NoiseScale gives, of two kinds at three steps."""
    lines = [
        (step, kind, 20.0 + step * i, 4.0)
        for step in range(3)
        for i, kind in enumerate(["linear", "all"])
    ]
    return pd.DataFrame(lines, columns=["step", "kind", "noise_scale", "noise_scale_stderr"])


SWEEPS = ("stdlib-lm", "cifar10-vit")
PICTURES = {
    "alpha_through_training": lambda: (few("stdlib-lm/rows.parquet"),),
    "closed_form_and_draws": lambda: (few("stdlib-lm/draws.parquet"),),
    "closed_forms_and_truth": lambda: (few("truth/stdlib-lm/truth.parquet"),),
    "coherence_across": lambda: (pd.concat([coherent().assign(of=n) for n in ("2", "4")]),),
    "cost_across": lambda: (pd.concat([costs((20,)).assign(of=n) for n in ("2", "4")]),),
    "coherence_of_noise": lambda: (coherent(),),
    "cost_and_bytes": lambda: (costs(),),
    "cost_and_variance": lambda: (costs(),),
    "cost_by_horizon": lambda: (costs(),),
    "cost_by_layer": lambda: (
        pd.concat([costs(horizons=(1,)).assign(layer=n) for n in ("a", "b")]).drop(
            columns="horizon"
        ),
    ),
    "cost_frontier": lambda: (costs().assign(family="rounding", biased=False, oracle=False),),
    "cost_through_training": lambda: (costs(),),
    "effective_batches_across": lambda: (pd.concat([effective().assign(of=n) for n in "ab"]),),
    "effective_batches_and_predictions": lambda: (effective(),),
    "error_distribution": lambda: (one_draw(),),
    "final_losses": lambda: (read_rows(DATA / "train/stdlib-lm/summary.parquet"),),
    "frontier": lambda: (average(few("frontier/frontier.parquet")),),
    "frontiers_across": lambda: (
        pd.concat([average(few("frontier/frontier.parquet")).assign(of=n) for n in ("a", "b")]),
    ),
    "losses_across": lambda: (
        pd.concat([read_rows(DATA / f"train/{n}/summary.parquet").assign(of=n) for n in SWEEPS]),
    ),
    "layer_times": lambda: (read_rows(DATA / "layers/layer.parquet"),),
    "matrices": lambda: ({"a": np.eye(2)},),
    "noise_by_kind": lambda: (scales(), 32),
    "noise_scale_through_training": lambda: (noise_scale(few("stdlib-lm/rows.parquet")), 32),
    "peak_memory": lambda: (read_rows(DATA / "memory/roberta/memory.parquet"),),
    "ratio_by_bytes": lambda: (compared(),),
    "ratio_by_layer": lambda: (few("stdlib-lm/rows.parquet"), 0.1, 300),
    "ratio_by_memory": lambda: (pd.DataFrame(CURVES), {"fraction": 0.3, "ratio": 0.7}),
    "ratio_through_training": lambda: (few("stdlib-lm/rows.parquet"), 0.1),
    "total_ratio": lambda: (read_rows(DATA / "train/stdlib-lm/rows.parquet"),),
    "validation_curves": lambda: (read_rows(DATA / "train/stdlib-lm/rows.parquet"),),
}


def figure_of(drawn):
    return drawn if isinstance(drawn, Figure) else drawn.figure


def pixels(figure):
    for _ in range(2):  # a constrained layout may need two to come to rest
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def test_every_public_picture_is_tried_here():
    assert set(PICTURES) == set(pictures.__all__) - {"paper_style", "save"}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_changes_no_settings(name):
    before = dict(mpl.rcParams)
    drawn = getattr(plot, name)(*PICTURES[name]())
    axes = drawn.axes if isinstance(drawn, Figure) else [drawn]
    assert axes and all(each.has_data() for each in axes) and dict(mpl.rcParams) == before
    plt.close("all")


@pytest.mark.parametrize("name", ["alpha_through_training", "final_losses", "peak_memory"])
def test_a_picture_looks_the_same_outside_of_its_style(name):
    """As where a user saves it by ``savefig``."""
    figure = figure_of(getattr(plot, name)(*PICTURES[name]()))
    outside = pixels(figure)
    with plot.paper_style():
        np.testing.assert_array_equal(pixels(figure), outside)
    plt.close(figure)


def test_the_style_is_not_matplotlibs_own():
    """The control of the test above: with the style's settings a plain figure looks different."""
    with plot.paper_style():
        inside, _ = plt.subplots()
        inside.draw_without_rendering()
    outside, _ = plt.subplots()
    assert (pixels(inside) != pixels(outside)).any()
    plt.close("all")


def test_pictures_load_no_torch():
    program = "import sys; from sketchvar import plot; plot.ratio_by_layer; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(found.stdout.split())
    assert "matplotlib.pyplot" in loaded, found.stderr
    assert not {"torch", "sklearn", "sketchvar.estimators.catalog"} & loaded


def bars(axes):
    """Lengths of all error bars, in the units of the data."""
    found = axes.containers
    lines = [segment for each in found for part in each[2] for segment in part.get_segments()]
    return [float(abs(line[-1] - line[0]).max()) for line in lines if len(line)]


@pytest.mark.parametrize("name", ["ratio_by_layer", "ratio_through_training"])
def test_bars_are_as_long_as_the_errors_that_rows_know(name):
    """Twice a standard error; none where it is not known, as in rows of before."""
    rows = few("stdlib-lm/rows.parquet").assign(ratio_stderr=0.1)
    rows["ratio"] = rows["ratio"].clip(lower=1.0)
    rows["variance"] = rows["ratio"] * rows["minibatch_example"]
    known = [each for each in bars(getattr(plot, name)(rows)) if np.isfinite(each)]
    assert known == pytest.approx([0.2] * len(known)) and known
    before = bars(getattr(plot, name)(rows.assign(ratio_stderr=np.nan)))
    assert not np.isfinite(before).any()
    plt.close("all")


def test_a_noise_scale_that_noise_hides_is_drawn_as_a_bound():
    rows = few("stdlib-lm/rows.parquet")
    table = noise_scale(rows, decay=0).assign(noise_scale_least=np.nan)
    hidden = table.assign(noise_scale_least=table["noise"].where(table["step"] > 0))
    for each, count in ((table, 0), (hidden, int(hidden["noise_scale_least"].notna().sum()))):
        axes = plot.noise_scale_through_training(each, 32)
        arrows = [
            point
            for part in axes.containers
            for line in part[1]
            if line.get_marker() == 10  # a caret up
            for point in line.get_ydata()
        ]
        assert np.isfinite(arrows).sum() == count
        words = [text.get_text() for text in axes.figure.legends[0].get_texts()]
        assert ("at least" in words) == (count > 0)
    plt.close("all")


@pytest.fixture(scope="module")
def rows():
    return few("stdlib-lm/rows.parquet")


def words_of(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_in_axes_of_ones_own_the_style_is_ones_own(rows):
    """As many lines as here, and the neighbours are left as they are."""
    with mpl.rc_context({"font.size": 17, "axes.labelsize": 17, "axes.grid": False}):
        figure, (left, right) = plt.subplots(1, 2)
        drawn = plot.ratio_through_training(rows, rate=0.1, ax=right, title="mine")
        assert drawn is right and right.get_title() == "mine" and not left.has_data()
        assert right.xaxis.label.get_size() == 17 and right.get_legend() is not None
        assert len(figure.axes) == 2 and not figure.legends
    plt.close("all")


def test_four_lines_to_a_figure_in_axes_of_ones_own():
    """Those of the page of pictures."""
    lines = re.search(r"```python\n(.*?)```", (ROOT / "docs/api/plot.md").read_text(), re.DOTALL)[1]
    assert len([line for line in lines.splitlines() if line]) == 4
    with mpl.rc_context({"font.size": 17, "figure.dpi": 50}):
        before, names = dict(mpl.rcParams), {}
        exec(lines, names)
        assert dict(mpl.rcParams) == before
        ax = names["ax"]
        assert ax.has_data() and ax.get_title() == "My layer" and ax.title.get_size() == 20.4
    plt.close("all")


def test_choice_order_and_labels(rows):
    axes = plot.ratio_through_training(
        rows,
        estimators=["uniform-rows", "optimal-rows", "gaussian"],
        order=["gaussian", "uniform-rows"],
        labels={"gaussian": "$ours_"},
        layers="*.query",
    )
    assert words_of(axes.figure.legends[0]) == [r"\$ours_", "uniform-rows", "optimal-rows (oracle)"]
    plt.close("all")


def test_names_of_runs_are_no_markup(rows):
    named = pd.concat([rows.assign(run="one"), rows.assign(run="$in$debt")])
    panels = plot.ratio_through_training(named).axes
    assert [axes.get_title() for axes in panels] == ["one", r"\$in\$debt"]
    plt.close("all")


def test_lines_that_lie_on_each_other_are_one_with_both_names(rows):
    """Balanced countsketch and srht have nearly the same closed form; gaussian has not."""
    names = words_of(plot.ratio_through_training(rows).figure.legends[0])
    assert "countsketch, srht" in names and "srht" not in names
    apart = rows.assign(variance=rows["variance"] * rows["estimator"].map({"srht": 1.3}).fillna(1))
    assert "srht" in words_of(plot.ratio_through_training(apart).figure.legends[0])
    plt.close("all")


def test_a_colour_and_a_marker_belong_to_an_estimator(rows):
    """Whatever else is drawn; and all of the catalog differ."""
    from sketchvar.estimators import CATALOG

    found = {}
    for others in (["gaussian", "srht"], ["srht"]):
        axes = plot.ratio_through_training(rows, estimators=others)
        lines = {each.get_label(): each[0] for each in axes.containers}
        found[len(others)] = lines["srht"].get_color(), lines["srht"].get_marker()
    assert found[1] == found[2]
    assert len({style.find_look(name) for name in CATALOG}) == len(CATALOG)
    plt.close("all")


def test_the_axis_of_steps_is_to_scale(rows):
    axes = plot.ratio_through_training(rows, estimators="gaussian")
    assert set(axes.containers[0][0].get_xdata()) == set(rows["step"])
    plt.close("all")


def test_several_runs_make_a_panel_each(rows):
    both = pd.concat([rows.assign(run="a"), rows.assign(run="b")])
    figure = plot.ratio_by_layer(both)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    with pytest.raises(ValueError, match=r"make 2 panels \(a, b\); give ax= the rows of one"):
        plot.ratio_by_layer(both, ax=plt.figure().subplots())
    plt.close("all")


def test_sizes(rows):
    one = rows[rows["estimator"] == "gaussian"]
    assert plot.ratio_by_layer(one, size="column").figure.get_size_inches()[0] == 3.4
    slide = plot.ratio_by_layer(one, size="slide")
    assert slide.xaxis.label.get_size() == pytest.approx(1.6 * 8)
    with pytest.raises(ValueError, match="size is 'column', 'page', 'slide' or"):
        plot.ratio_by_layer(one, size="poster")
    plt.close("all")


def deepen(rows, blocks):
    """The first layer's rows in so many blocks of three kinds, and in a head."""
    one = rows[rows["layer"] == rows["layer"].iloc[0]]
    kinds = ("self.query", "self.key", "output")
    names = [f"bert.encoder.layer.{i}.{kind}" for i in range(blocks) for kind in kinds]
    return pd.concat([one.assign(layer=name) for name in [*names, "classifier"]])


def test_three_hundred_layers_fold_into_blocks_and_kinds(rows):
    deep = deepen(rows[rows["estimator"].isin(["gaussian", "optimal-rows"])], 100)
    axes = plot.ratio_by_layer(deep)
    assert max(axes.figure.get_size_inches()) < 11
    kinds = [tick.get_text() for tick in axes.get_yticklabels()]
    assert kinds == 2 * ["self.query", "self.key", "output", "classifier"]
    assert {"gaussian", "optimal-rows (oracle)"} <= {text.get_text() for text in axes.texts}
    cells = axes.collections[0].get_array()
    assert cells.shape == (8, 101) and cells.count() == 2 * (300 + 1)
    plt.close("all")


def test_names_on_an_axis_are_short():
    names = [f"bert.encoder.layer.{i}.query" for i in (0, 11)]
    assert fold.shorten([*names, "classifier"]) == ["0.query", "11.query", "classifier"]
    assert fold.shorten(["only.0.one"]) == ["only.0.one"]


def test_one_layer_and_ratios_that_are_not_known(rows):
    one = rows[rows["layer"] == rows["layer"].iloc[0]]
    first = one["estimator"] == "gaussian"
    assert plot.ratio_by_layer(one.assign(ratio=one["ratio"].mask(first))).has_data()
    with pytest.raises(ValueError, match="no ratio is known: all are NaN"):
        plot.ratio_by_layer(one.assign(ratio=np.nan))
    plt.close("all")


BAD = {
    "step": (dict(step=7), r"step 7 was not measured; measured were 0, 10, 30"),
    "rate": (dict(rate=0.3), r"no rows at rate 0\.3; measured were 0\.05, 0\.1"),
    "layer": (dict(layers="block9*"), r"no layer 'block9\*' in these rows; there are blocks\.0"),
    "estimator": (dict(estimators="exact"), "no estimator 'exact' in these rows; there are"),
    "order": (dict(order=["exact"]), "no estimator 'exact' in these rows; there are"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_was_not_measured_is_an_error_that_names_what_was(rows, what):
    options, says = BAD[what]
    with pytest.raises(ValueError, match=says):
        plot.ratio_by_layer(rows, **options)
    assert not plt.get_fignums()


def test_rows_of_something_else_are_an_error_that_names_the_columns(rows):
    with pytest.raises(ValueError, match="needs the columns ratio; these rows have run, step"):
        plot.ratio_by_layer(rows.drop(columns="ratio"))
    with pytest.raises(ValueError, match="there are no rows to draw"):
        plot.ratio_by_layer(rows[:0])
    with pytest.raises(ValueError, match="no rows at horizon 3; measured were 1, 10, inf"):
        plot.cost_and_variance(costs(), horizon=3)


def test_files_of_every_kind(rows, tmp_path):
    one = rows[rows["estimator"] == "gaussian"]
    files = plot.save(plot.ratio_by_layer(one, size="column"), tmp_path / "a", ["svg", "pdf"])
    assert [file.name for file in files] == ["a.svg", "a.pdf"]
    assert "gaussian</text>" in files[0].read_text() and not plt.get_fignums()


def test_runs_beside_each_other_share_a_panel():
    rows = pd.DataFrame(
        {
            "of": ["depth 2", "depth 8"],
            "run": ["a", "b"],
            "noise": "minibatch",
            "rate": 1.0,
            "seeds": "own",
            "coherence": [0.8, 0.7],
            "coherence_stderr": 0.1,
        }
    )
    axes = plot.coherence_across(rows)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["depth 2", "depth 8"]


def test_losses_of_sweeps_stand_on_one_scale_and_know_their_own_whole_batch():
    """Batch 16 is the whole one of one sweep and a smaller one of the other."""
    (rows,) = PICTURES["losses_across"]()
    first, second = (rows[rows["of"] == name] for name in SWEEPS)
    small = second[(second["estimator"] == "exact") & (second["batch"] < 32)]
    rows = pd.concat([first, second[second["estimator"] != "exact"], small.assign(batch=16)])
    axes = plot.losses_across(rows)
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names.count("exact, batch 16") == 1 and len(set(names)) == len(names)
    batches = [int(name.rpartition(" ")[2]) for name in names if name.startswith("exact")]
    assert batches == sorted(batches)
    drawn = sorted(
        x for line in axes.lines if line.get_marker() != "None" for x in line.get_xdata()
    )
    shown = rows[rows["validation_exact"].notna() & ~rows["checkpointing"]]
    whole = shown["batch"] == shown.groupby("of")["batch"].transform("max")
    shown = shown[(shown["estimator"] != "exact") | ~whole]
    np.testing.assert_allclose(drawn, sorted(shown["validation_exact"]))
    with pytest.raises(ValueError, match="of"):
        plot.losses_across(rows.drop(columns="of"))


def test_many_runs_of_forks_are_told_apart_by_task():
    def shown(runs):
        parts = [
            effective().assign(of=f"run {i}", task=f"task {i % 2}", family="rows")
            for i in range(runs)
        ]
        axes = plot.effective_batches_across(pd.concat(parts), field="by_cost")
        return set(words_of(axes.figure.legends[0]))

    assert {"run 0", "run 5"} <= shown(6)
    assert shown(7) == {"rows", "task 0", "task 1"}


def test_frontiers_on_one_scale_are_the_least_of_each():
    (rows,) = PICTURES["frontiers_across"]()
    rows.loc[rows["of"] == "b", "ratio"] *= 2
    axes = plot.frontiers_across(rows)
    a, b = (each.lines[0].get_xydata() for each in axes.containers)
    np.testing.assert_allclose(b, a * [1, 2])
    assert (
        a[:, 1].min()
        == rows.loc[
            (rows["of"] == "a") & ~rows["oracle"] & ~rows["biased"] & (rows["ratio"] > 0), "ratio"
        ].min()
    )
