"""The noise of every parameter as a table, and the noise scale of a model as moving averages."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from sketchvar import plot
from sketchvar.analysis import noise
from sketchvar.analysis.noise.moving import scale_of_steps
from sketchvar.analysis.noise.parameters import (
    NOISE_COLUMNS,
    Gradient,
    read_noise,
    tabulate_noise,
)
from sketchvar.analysis.noise.scale import ALL, TOTAL, WHOLE

S = 5


def gradients(seed, inner=True):
    """Of two kinds, three parameters, with their gradients by example."""
    g = torch.Generator().manual_seed(seed)
    each = {
        name: torch.randn(S, size, generator=g, dtype=torch.float64) + 0.4
        for name, size in (("a", 7), ("b", 3), ("c", 2))
    }
    found = [
        Gradient(
            name, "norm" if name == "c" else "linear", t.shape[1], t.sum(0).square().sum(),
            t.square().sum(1), t @ t.sum(0) if inner else None,
        )
        for name, t in each.items()
    ]  # fmt: skip
    return each, found


def rows_of(step, batches):
    lines = tabulate_noise(batches)
    return pd.DataFrame([("", step, *line) for line in lines], columns=NOISE_COLUMNS)


def test_sums_and_their_errors_leave_out_one_example_of_the_whole_model():
    """Must fail: errors of parameters added, as if they saw different examples, or as if all erred
    alike.
    """
    each, found = gradients(0)
    rows = rows_of(0, [found]).set_index(["parameter", "kind"]).sort_index()
    for group, names in {"linear": "ab", "norm": "c", ALL: "abc"}.items():
        g = torch.cat([each[name] for name in names], 1)

        def both(g):
            C = g.sum(0).square().sum()
            D = noise.by_example(g.square().sum(1), C)
            return torch.stack([D, C, C - D])

        without = []
        for s in range(S):
            rest = torch.cat([g[:s], g[s + 1 :]]) * S / (S - 1)
            D, C, _ = both(rest)
            D = D * (S - 1) / S  # of a mean over S
            without.append(torch.stack([D, C, C - D]))
        stderr = torch.stack(without).std(0) * (S - 1) / S**0.5
        row = rows.loc[WHOLE, group]
        told = row[["minibatch_example", "grad_sq", "minibatch_example_stderr", "grad_sq_stderr",
                    "signal_stderr"]].to_list()  # fmt: skip
        assert told == pytest.approx([*both(g)[:2].tolist(), *stderr.tolist()], rel=1e-10)
    alone = rows.drop(index=WHOLE)["minibatch_example_stderr"]
    whole = rows.loc[(WHOLE, ALL), "minibatch_example_stderr"]
    assert abs((alone**2).sum() ** 0.5 / whole - 1) > 0.05 and abs(alone.sum() / whole - 1) > 0.05


@pytest.mark.parametrize("population", [None, 20])
def test_the_error_of_a_step_by_itself_knows_how_noise_and_signal_go_together(population):
    """Against the ratio's derivatives at the estimates without each example. Must fail: noise and
    signal taken to err apart.
    """
    _, found = gradients(0)
    lines = tabulate_noise([found], population)
    rows = pd.DataFrame([("", 0, *line) for line in lines], columns=NOISE_COLUMNS)
    table, gaps = scale_of_steps(rows).set_index("kind"), []
    for kind, part in {"linear": found[:2], "norm": found[2:], ALL: found}.items():
        v, C = (t.sum(0) for t in read_noise(part))  # with all, and without each
        signal = C - v * (1 - S / population if population else 1)
        values = torch.stack([S * v / signal, v, signal])[:, 0]
        moves = torch.stack([v, signal])[:, 1:]
        moves = (moves - moves.mean(1, keepdim=True)) / values[1:, None]
        apart = moves.square().sum() ** 0.5 * ((S - 1) / S) ** 0.5
        together = (moves[0] - moves[1]).square().sum() ** 0.5 * ((S - 1) / S) ** 0.5
        assert table["noise_scale"][kind] == pytest.approx(float(values[0]))
        stderr = table["noise_scale_stderr"][kind] / table["noise_scale"][kind]
        assert stderr == pytest.approx(float(together), rel=1e-9)
        gaps.append(abs(stderr / float(apart) - 1))
    assert max(gaps) > 0.05


def test_errors_of_the_gradient_are_unknown_without_inner_products():
    _, found = gradients(0, inner=False)
    rows = rows_of(0, [found])
    assert rows[["grad_sq_stderr", "signal_stderr"]].isna().all(axis=None)
    assert rows["minibatch_example_stderr"].notna().all()


def test_two_ways_to_the_noise_scale_of_a_model():
    """``noise_scale`` of layers gives what ``NoiseScale`` gives of parameters."""
    rows = pd.concat([rows_of(step, [gradients(step)[1]]) for step in range(6)])
    scale = noise.NoiseScale(decay=0.7)
    found = scale.add(rows)
    layers = rows[rows["parameter"] != WHOLE].rename(columns={"parameter": "layer"})
    table = noise.noise_scale(layers, decay=0.7)
    want = table[table["layer"] == TOTAL]["noise_scale"].to_list()
    assert found[found["kind"] == ALL]["noise_scale"].to_list() == pytest.approx(want, nan_ok=True)
    assert scale.value()[0] == pytest.approx(want[-1], nan_ok=True)


def test_a_state_goes_on_where_it_was_saved():
    rows = pd.concat([rows_of(step, [gradients(step)[1]]) for step in range(8)])
    whole, first = noise.NoiseScale(), noise.NoiseScale()
    whole.add(rows)
    first.add(rows[rows["step"] < 5])
    second = noise.NoiseScale()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.add(rows[rows["step"] >= 5])
    pd.testing.assert_frame_equal(second.table(), whole.table())
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"sizes": {"linear": 4, ALL: 4}}, "another model"),
        (lambda s: s | {"decay": 0.5}, "decay=0.5"),
        (lambda s: {"model": 1}, "no state of a NoiseScale"),
    ],
)
def test_a_state_of_something_else_is_refused(change, message):
    scale = noise.NoiseScale()
    scale.add(rows_of(0, [gradients(0)[1]]))
    with pytest.raises(ValueError, match=message):
        scale.load_state_dict(change(scale.state_dict()))
    with pytest.raises(ValueError, match="decay must be"):
        noise.NoiseScale(decay=1.0)


def simulate(seed, correlation):
    """The scale and its error after 40 steps of known noise (8) and signal (2)."""
    draw = np.random.default_rng(seed).multivariate_normal(
        [8.0, 2.0], [[4.0, 0.8 * correlation], [0.8 * correlation, 0.16]], 40
    )
    scale = noise.NoiseScale(decay=0.95)
    for step, (tr, signal) in enumerate(draw):
        scale.add_row(
            {"parameter": WHOLE, "kind": ALL, "size": 1, "step": step, "examples": 4.0,
             "minibatch_example": tr / 4, "grad_sq": signal + tr / 4, "population": np.nan}
        )  # fmt: skip
    return scale.value()


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_error_is_what_the_scale_varies_by(correlation):
    """Over 400 trainings, whose standard deviation is known to 3.5 %; must fail: noise and signal
    taken as independent where they are not.
    """
    found = np.array([simulate(seed, correlation) for seed in range(400)])
    true, told = found[:, 0].std(), np.sqrt((found[:, 1] ** 2).mean())
    assert abs(told / true - 1) < 0.16  # four errors, and the estimate's own first order
    assert abs(found[:, 0].mean() - 4.0) < 4.5 * true / 20 + 0.02
    if correlation:
        apart = (0.16 * 4.0**2 + 4.0) ** 0.5 / (0.16 * 16 + 4 - 2 * 4 * 0.8 * 0.9) ** 0.5
        assert apart > 1.5


def test_the_picture_and_the_proxy_by_kind():
    rows = pd.concat([rows_of(step, [gradients(step)[1]]) for step in range(5)])
    table = noise.NoiseScale().add(rows)
    axes = plot.noise_by_kind(table, 32)
    labels = axes.get_legend_handles_labels()[1]
    assert set(labels) == {"linear weights", "norm layers", "whole model", "batch size"}
    plt.close(axes.figure)
    proxies = noise.compare_proxies({"one": rows}).set_index("kind")
    wide = table.pivot_table("noise_scale", "step", "kind").dropna()
    want = np.exp(np.log(wide["norm"] / wide[ALL]).mean())
    assert proxies.loc["norm", "ratio"] == pytest.approx(want)
    assert set(proxies.index) == {"linear", "norm"}
