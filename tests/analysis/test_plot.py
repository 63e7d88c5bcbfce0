"""Public pictures: no torch, no rcParams changed, and the same whoever saves them."""

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from sketchvar import plot
from sketchvar.analysis import plot as pictures
from sketchvar.analysis.frontier.best import average
from sketchvar.analysis.noise.scale import noise_scale
from sketchvar.analysis.noise.select import by_unit
from sketchvar.analysis.records import read_rows

mpl.use("agg")
DATA = Path(__file__).parents[2] / "data"
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
    return pd.DataFrame([*lines, (20, "exact", *lines[0][2:])], columns=columns)


def one_draw():
    """A row as ``draw_errors`` has them."""
    line = {"estimator": "gaussian", "rate": 0.1, "error_sq": 2.0, "variance": 1.5, "grad_sq": 3.0}
    return pd.DataFrame([line])


def compared():
    """A row as ``compare`` has them."""
    line = {"estimator": "gaussian", "share": 0.1, "ratio": 2.0, "ratio_stderr": 0.1}
    return pd.DataFrame([line | {"minibatch_example": 1.0, "oracle": False, "biased": False}])


def few(file, layers=3):
    rows = read_rows(DATA / file)
    return rows[rows["layer"].isin(list(rows["layer"].unique())[:layers])]


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
    "cost_by_layer": lambda: (pd.concat([costs().assign(layer=n) for n in ("a", "b")]),),
    "cost_frontier": lambda: (costs().assign(family="rounding", biased=False, oracle=False),),
    "cost_through_training": lambda: (costs(),),
    "effective_batches_and_predictions": lambda: (effective(),),
    "error_distribution": lambda: (one_draw(),),
    "final_losses": lambda: (read_rows(DATA / "train/stdlib-lm/summary.parquet"),),
    "frontier": lambda: (average(few("frontier/frontier.parquet")),),
    "layer_times": lambda: (read_rows(DATA / "layers/layer.parquet"),),
    "matrices": lambda: ({"a": np.eye(2)},),
    "noise_scale_through_training": lambda: (noise_scale(few("stdlib-lm/rows.parquet")), 32),
    "peak_memory": lambda: (read_rows(DATA / "memory/batch-16-32/memory.parquet"),),
    "ratio_by_bytes": lambda: (compared(),),
    "ratio_by_layer": lambda: (few("stdlib-lm/rows.parquet"), 300, 0.1),
    "ratio_by_memory": lambda: (pd.DataFrame(CURVES), {"fraction": 0.3, "ratio": 0.7}),
    "ratio_through_training": lambda: (by_unit(few("stdlib-lm/rows.parquet")), 0.1),
    "total_ratio": lambda: (read_rows(DATA / "train/stdlib-lm/rows.parquet"),),
    "validation_curves": lambda: (read_rows(DATA / "train/stdlib-lm/rows.parquet"),),
}


def pixels(figure):
    for _ in range(2):  # a constrained layout may need two to come to rest
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def test_every_public_picture_is_tried_here():
    assert set(PICTURES) == set(pictures.__all__) - {"paper_style", "save"}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_changes_no_settings(name):
    before = dict(mpl.rcParams)
    figure = getattr(plot, name)(*PICTURES[name]())
    assert figure.axes and dict(mpl.rcParams) == before
    plt.close("all")


@pytest.mark.parametrize("name", ["alpha_through_training", "final_losses", "peak_memory"])
def test_a_picture_looks_the_same_outside_of_its_style(name):
    """As where a user saves it by ``savefig``."""
    figure = getattr(plot, name)(*PICTURES[name]())
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


def bars(figure):
    """Lengths of all error bars, in the units of the data."""
    found = [each for axes in figure.axes for each in axes.containers]
    lines = [segment for each in found for part in each[2] for segment in part.get_segments()]
    return [float(abs(line[-1] - line[0]).max()) for line in lines if len(line)]


@pytest.mark.parametrize("name", ["ratio_by_layer", "ratio_through_training"])
def test_bars_are_as_long_as_the_errors_that_rows_know(name):
    """Twice a standard error; none where it is not known, as in rows of before."""
    rows = few("stdlib-lm/rows.parquet").assign(ratio_stderr=0.1)
    rows["ratio"] = rows["ratio"].clip(lower=1.0)
    more = (rows["step"].max(), 0.1) if name == "ratio_by_layer" else (0.1,)
    at = by_unit if name == "ratio_through_training" else lambda each: each
    known = [each for each in bars(getattr(plot, name)(at(rows), *more)) if np.isfinite(each)]
    assert known == pytest.approx([0.2] * len(known)) and known
    before = bars(getattr(plot, name)(at(rows.assign(ratio_stderr=np.nan)), *more))
    assert not np.isfinite(before).any()
    plt.close("all")


def test_a_noise_scale_that_noise_hides_is_drawn_as_a_bound():
    rows = few("stdlib-lm/rows.parquet")
    table = noise_scale(rows, decay=0)
    hidden = table.assign(noise_scale_least=table["noise"].where(table["step"] > 0))
    for each, count in ((table, 0), (hidden, int(hidden["noise_scale_least"].notna().sum()))):
        figure = plot.noise_scale_through_training(each, 32)
        arrows = [
            point
            for part in figure.axes[0].containers
            for line in part[1]
            if line.get_marker() == 10  # a caret up
            for point in line.get_ydata()
        ]
        assert np.isfinite(arrows).sum() == count
        words = [text.get_text() for text in figure.legends[0].get_texts()]
        assert ("at least" in words) == (count > 0)
    plt.close("all")
