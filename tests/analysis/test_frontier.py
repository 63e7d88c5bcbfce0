"""The frontier: largest rates that fit the bytes, right ratios, the figure, the command."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch

from sketchvar.analysis.__main__ import main
from sketchvar.analysis.frontier import figure as frontier_figure
from sketchvar.analysis.frontier.best import (
    BASELINE,
    FAMILIES,
    average,
    merge_lines,
)
from sketchvar.analysis.frontier.rows import (
    COLUMNS,
    ESTIMATORS,
    FRACTIONS,
    STEPS,
    find_rate,
    frontier,
)
from sketchvar.analysis.noise.layer import pair_layer
from sketchvar.estimators import CATALOG, Moments, UniformRows, estimate, parse
from sketchvar.estimators.catalog import ORACLES
from sketchvar.estimators.choice import choose
from sketchvar.estimators.seeds import fold
from sketchvar.estimators.spelling import takes_rate

mpl.use("agg")


F32 = torch.float32


@pytest.fixture(scope="module")
def pair():
    g = torch.Generator().manual_seed(0)
    size = torch.randn(64, 1, generator=g).exp()
    return size * torch.randn(64, 32, generator=g) + 1, size * torch.randn(64, 8, generator=g)


@pytest.fixture(scope="module")
def rows(pair):
    return frontier(pair_layer(*pair), F32)


def test_everything_in_the_catalog_is_there_at_every_budget_it_fits(pair, rows):
    assert list(rows.columns) == COLUMNS
    assert set(CATALOG) - {"exact"} <= set(rows["estimator"])
    for name in ESTIMATORS:
        part = rows[rows["estimator"] == name]
        if not takes_rate(name):
            assert len(part) == 1 and part["rate"].iloc[0] == 1 and part["budget"].isna().all()
            continue
        assert set(part["budget"]) == {
            b for b in FRACTIONS if find_rate(choose(name, 1.0), b, 64, 32, F32)
        }
        assert (part["fraction"] <= part["budget"]).all()
    assert set(rows["family"]) == set(FAMILIES)
    family = dict(zip(rows["estimator"], rows["family"], strict=True))
    by_name = {"low-rank": "features", "nearest-rounding": "rounding", "generators": "row sketches"}
    assert {name: family[name] for name in by_name if name in family} == by_name


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if takes_rate(name)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_largest_rate_that_fits(name, dtype):
    n, p = 640, 48
    for fraction in (0.6, 0.2, 0.05, 0.001):
        room = fraction * n * p * dtype.itemsize
        rate = find_rate(choose(name, 1.0), fraction, n, p, dtype)
        if rate is None:
            assert parse(name, 1 / STEPS, torch.ones(1)).kept_bytes(n, p, dtype) > room
        else:
            assert parse(name, rate, torch.ones(1)).kept_bytes(n, p, dtype) <= room
            assert (
                rate == 1
                or parse(name, rate + 1 / STEPS, torch.ones(1)).kept_bytes(n, p, dtype) > room
            )


def test_bytes_are_what_is_really_kept(pair, rows):
    """Payload, indices, scales and seed, of one that was compressed."""
    x, y = pair
    y_sq = y.double().square().sum(1)
    for _, row in rows.iterrows():
        e = parse(row["estimator"], row["rate"], y_sq)
        if not e.traits.varying_size:
            assert e.compress(x, 1).nbytes == row["kept_bytes"] == row["fraction"] * x.nbytes


def test_bytes_are_counted_in_the_dtype_trained_in(pair):
    wide, narrow = (
        frontier(pair_layer(*pair), t, ["rounding:4"])["fraction"].item()
        for t in (F32, torch.bfloat16)
    )
    assert narrow == 2 * wide


def test_ratios(pair, rows):
    """Uniform rows are a smaller batch: their ratio is (n − k)/k to the last digit, where a row is
    an example.
    """
    part = rows[rows["estimator"] == BASELINE]
    k = part["rate"].map(lambda rate: UniformRows(rate).k(64))
    np.testing.assert_allclose(part["ratio"], (64 - k) / k, rtol=1e-6)
    m = Moments.of(*pair)
    for _, row in rows[rows["stderr"] == 0].iterrows():
        expected = parse(row["estimator"], row["rate"], m.y_sq).variance(m)
        assert row["variance"] == pytest.approx(float(expected), rel=1e-12)
        assert row["ratio"] == row["variance"] / row["minibatch_example"]


def test_what_has_no_closed_form_is_drawn_or_left_out(pair, rows):
    x, y = pair
    drawn = rows[rows["stderr"] > 0]
    rounded = {"countsketch+rounding:4", "feature-gaussian+rounding:2"}
    assert set(drawn["estimator"]) == {*rounded, "priority-rows"}
    row = drawn[drawn["estimator"] == "countsketch+rounding:4"].iloc[0]
    e = parse(row["estimator"], row["rate"])
    seed = fold(0, "frontier", row["estimator"])
    errors = [(estimate(e, x, y, fold(seed, i)) - x.T @ y).square().sum() for i in range(32)]
    assert row["variance"] == pytest.approx(float(torch.stack(errors).mean()), rel=1e-5)
    assert row["stderr"] == pytest.approx(float(torch.stack(errors).std()) / 32**0.5, rel=1e-4)
    without = frontier(pair_layer(x, y), F32, draws=0)
    pd.testing.assert_frame_equal(without, rows[rows["stderr"] == 0].reset_index(drop=True))


def test_oracles_and_bias_are_marked(rows):
    assert set(rows.loc[rows["oracle"], "estimator"]) == ORACLES
    assert set(rows.loc[rows["biased"], "estimator"]) >= {"top-rows"}
    top = rows[rows["estimator"] == "top-rows"]
    assert (top["bias_sq"] == top["variance"]).all() and (top["bias_sq"] > 0).all()
    assert ((rows["bias_sq"] > 0) == rows["biased"]).all()


def test_examples_of_several_rows():
    """The minibatch variance is that of per-example gradients, from its definition."""
    g = torch.Generator().manual_seed(1)
    x, y = (torch.randn(5, 7, d, generator=g, dtype=torch.float64) for d in (4, 3))
    each = x.mT @ y
    expected = 5 / 4 * (each - each.mean(0)).square().sum()
    row = frontier(pair_layer(x, y), torch.float64, ["countsketch"], [0.5]).iloc[0]
    assert (row["rows"], row["examples"]) == (35, 5)
    assert row["minibatch_example"] == pytest.approx(float(expected))
    assert row["minibatch_row"] != pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ((4, 2), (5, 2), "got shapes"),
        ((4,), (4,), "must be n × p and n × q"),
        ((2, 3, 4, 5), (2, 3, 4, 5), "must be n × p and n × q"),
        ((1, 9, 4), (1, 9, 3), "at least 2 examples, got 1"),
    ],
)
def test_pairs_that_are_none(x, y, says):
    with pytest.raises(ValueError, match=says):
        pair_layer(torch.ones(x), torch.ones(y))


def test_figure(rows):
    figure = frontier_figure.frontier(merge_lines(average(rows)))
    assert "minibatch variance" in figure.get_supylabel() and "bytes kept" in figure.get_supxlabel()
    assert len(figure.axes) == len(FAMILIES)
    drawn = set()
    for axes in figure.axes:
        named = {line.get_label(): line for line in axes.get_lines()}
        assert axes.get_yscale() == "log" == axes.get_xscale()
        assert BASELINE in named and [1, 1] in [list(line.get_ydata()) for line in axes.get_lines()]
        for label in axes.get_legend_handles_labels()[1]:
            drawn |= set(label.replace("\n", " ").split(", "))
    words = " ".join(drawn)
    for name in (
        "haar",
        "optimal-rows (oracle)",
        "top-rows (biased)",
        "rounding-rotated",
        "countsketch+rounding:4 (draws)",
    ):
        assert name in words
    values = figure.axes[0].get_lines()
    baseline = next(line for line in values if line.get_label() == BASELINE)
    expected = rows[rows["estimator"] == BASELINE].sort_values("fraction")
    np.testing.assert_allclose(baseline.get_ydata(), expected["ratio"])
    np.testing.assert_allclose(baseline.get_xdata(), expected["fraction"])


def test_figure_of_nothing_but_rounding(pair):
    rows = frontier(pair_layer(*pair), F32, ["rounding:2", "rounding:4", "exact"])
    figure = frontier_figure.frontier(merge_lines(average(rows)))
    assert len(figure.axes) == rows["family"].nunique() < len(FAMILIES)


QUICK = ["frontier", "--task", "digits-mlp", "--step", "0", "2"]


def outcome(out):
    assert (out / "frontier.png").stat().st_size > 10_000 and (out / "frontier.pdf").exists()
    return pd.read_parquet(out / "frontier.parquet"), json.loads(
        (out / "frontier.json").read_text()
    )


def save(path, pair):
    tensors = dict(zip("xy", pair, strict=True))
    match path.suffix:
        case ".pt":
            torch.save(tensors, path)
        case ".npz":
            np.savez(path, **{name: t.numpy() for name, t in tensors.items()})
        case ".safetensors":
            pytest.importorskip("safetensors.torch").save_file(tensors, path)
    return path


@pytest.mark.parametrize("kind", ["pt", "npz", "safetensors"])
def test_command_on_a_pair(tmp_path, capsys, pair, rows, kind):
    file = save(tmp_path / f"pair.{kind}", pair)
    few = ["countsketch", "uniform-rows", "rounding:2", "countsketch+rounding:4"]
    assert (
        main(
            ["frontier", "--pair", str(file), "--estimators", *few, "--out", str(tmp_path / "out")]
        )
        == 0
    )
    table, about = outcome(tmp_path / "out")
    expected = rows[rows["estimator"].isin(few)].set_index(["estimator", "fraction"])["ratio"]
    found = table.set_index(["estimator", "fraction"])["ratio"]
    pd.testing.assert_series_equal(found.sort_index(), expected.sort_index())
    assert about["options"]["pair"] == str(file) and "commit" in about
    printed = capsys.readouterr().out
    assert "12.5 %" in printed and "rounding:2" in printed and "(draws)" in printed


def test_command_on_a_task_on_one_layer_and_on_a_run(tmp_path, capsys):
    assert main([*QUICK, "--out", str(tmp_path / "task")]) == 0
    table, _ = outcome(tmp_path / "task")
    assert (
        set(table["step"]) == {0, 2}
        and len(set(table["layer"])) > 1
        and (table["stderr"] == 0).all()
    )
    layer = table["layer"].iloc[0]
    words = ["frontier", "--task", "digits-mlp", "--step", "2", "--layer", layer, "--draws", "4"]
    assert main([*words, "--out", str(tmp_path / "layer")]) == 0
    alone, _ = outcome(tmp_path / "layer")
    assert (
        set(alone["layer"]) == {layer} and set(alone["step"]) == {2} and (alone["stderr"] > 0).any()
    )
    assert set(table["run"]) == {"task"} and set(alone["run"]) == {"layer"}
    same = (
        table[(table["layer"] == layer) & (table["step"] == 2)]
        .assign(run="layer")
        .reset_index(drop=True)
    )
    pd.testing.assert_frame_equal(alone[alone["stderr"] == 0].reset_index(drop=True), same)
    words = [
        "run",
        "--task",
        "digits-mlp",
        "--steps",
        "2",
        "--rates",
        "0.5",
        "0.1",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*words, "--estimators", "countsketch", "uniform-rows", "rounding:2"]) == 0
    assert main(["frontier", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "again")]) == 0
    table, _ = outcome(tmp_path / "again")
    assert set(table["estimator"]) == {"countsketch", "uniform-rows", "rounding:2"}
    assert table.loc[table["estimator"] == "rounding:2", "fraction"].max() < 0.25
    capsys.readouterr()


def test_an_interrupted_frontier_keeps_its_rows(tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sketchvar.analysis.report.frontier.average", stop)
    assert main([*QUICK, "--estimators", "uniform-rows", "--out", str(tmp_path)]) == 2
    assert "what was measured is kept" in capsys.readouterr().err
    assert set(pd.read_parquet(tmp_path / "frontier.parquet")["step"]) == {0, 2}


def bad(pair, name):
    x, y = pair
    return {
        "nan": (x.index_fill(0, torch.tensor([3]), torch.nan), y),
        "whole": (x.long(), y.long()),
        "two dtypes": (x, y.double()),
        "rows": (x, y[1:]),
        "zero": (x, 0 * y),
    }[name]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("nan", "x of .* is not finite"),
        ("whole", "x and y of .* must be of one floating dtype, got torch.int64 and torch.int64"),
        ("two dtypes", "got torch.float32 and torch.float64"),
        ("rows", "X and Y must be n × p and n × q"),
        ("zero", "no ratio can be drawn"),
    ],
)
def test_a_pair_that_makes_no_sense(tmp_path, capsys, pair, content, says):
    file = save(tmp_path / "pair.pt", bad(pair, content))
    assert main(["frontier", "--pair", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert pd.Series([error]).str.contains(says).all(), error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pair", "nowhere.pt"], "no file nowhere.pt"),
        (["--pair", "{file}.txt"], "give a .pt, .npz or .safetensors file"),
        (["--pair", "{file}.pt"], "cannot read"),
        (["--pair", "{file}.npz"], "cannot read"),
        (["--pair", "{file}.safetensors"], "cannot read"),
        (["--pair", "{other}"], "holds a, y, not x and y; save it as in torch.save"),
        (["--pair", "{other}", "--layer", "a"], "--layer and --step choose from a --task"),
        (["--run", "nowhere"], "nowhere"),
        (["--budgets", "0"], "budgets are fractions of X's bytes, 0 to 1, got 0"),
        (["--budgets", "12.5"], "got 12.5; write 0.125 for 12.5 %"),
        (["--draws", "1"], "--draws must be 0, or 2 or more"),
        (["--step", "3", "1"], "steps must be different and rising from 0, got 3 1"),
        (["--step", "-1"], "steps must be different and rising from 0, got -1"),
        (["--layer", "nix"], "called 'nix'; known are"),
        (["--estimators", "gausian"], "did you mean 'gaussian'"),
        (["--estimators", "rounding:3"], "bits of 1, 2, 4 or 8"),
        (["--estimators", "gaussian+countsketch"], "sketch of a sketch"),
        (["--device", "cdua"], "did you mean 'cuda'"),
        (["--task", "digits"], "did you mean 'digits-mlp'"),
    ],
)
def test_bad_input_is_one_line_before_any_work(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    for kind in ("txt", "pt", "npz", "safetensors"):
        (tmp_path / f"file.{kind}").write_text("no tensors at all")
    torch.save({"a": torch.ones(1), "y": torch.ones(1)}, "other.pt")
    words = [word.format(file="file", other="other.pt") for word in words]
    assert main(["frontier", "--task", "digits-mlp", *words]) == 2
    captured = capsys.readouterr()
    error = [line for line in captured.err.splitlines() if line.startswith("sketchvar frontier:")]
    assert len(error) == 1 and says in error[0]
    assert not (tmp_path / "runs").exists()
