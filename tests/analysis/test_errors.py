"""Standard errors: against a literal deletion of each example, and against redrawn batches."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch

from sketchvar.analysis.noise import by_example, compare, pair_layer
from sketchvar.analysis.noise.errors import estimate
from sketchvar.analysis.noise.table import COLUMNS, read_batch, tabulate
from sketchvar.estimators import Moments, choices

S, T, P, Q = 7, 3, 4, 5
RATE = 0.25
ROWS = S * T
KEPT = round(RATE * ROWS)


def draw(seed=0, examples=S, tail=1.0):
    """Examples of unlike size."""
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(examples, T, d, generator=g, dtype=torch.float64) for d in (P, Q))
    size = (tail * torch.randn(examples, 1, 1, generator=g, dtype=torch.float64)).exp()
    return x * size + 0.3, y / examples


def closed_forms(x, y, n=ROWS, d_scale=1.0):
    """Variances, minibatch variances and alpha of examples X (S × T × p) and Y in the scale of a
    batch of as many, as for n rows.
    """
    m = Moments.of(x.flatten(0, 1), y.flatten(0, 1))
    d = m.D * d_scale
    g_sq = (x.mT @ y).square().sum((1, 2))
    row, example = (n * d - m.C) / (n - 1), by_example(g_sq, m.C)
    return {
        "gaussian": (m.Q + m.C) / KEPT,
        "sparse-sign": (m.Q + m.C - 2 * d) / KEPT,
        "uniform-rows": (n * d - m.C) * (n - KEPT) / (KEPT * (n - 1)),
        "feature-columns": (P / round(RATE * P) - 1) * m.C,
        "minibatch_row": row,
        "minibatch_example": example,
        "alpha": m.C / m.Q,
        "signal": m.C - example,
    }


def jackknife(values):
    values = np.array(values)
    return sqrt((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum())


def without(x, y, s, scale_d=True):
    """Forms of the rest, as of a batch of S: a mean over S − 1 examples, each of which stands for
    S/(S − 1).
    """
    left = [i for i in range(S) if i != s]
    grow = S / (S - 1)
    # Q and C of the mean over the rest, whose rows stand for n: ‖X‖² grows, ‖Y‖² by a square, and
    # shrinks with the number of them
    x, y = x[left] * sqrt(grow), y[left] * sqrt(grow)
    forms = closed_forms(x, y, d_scale=1 / grow if scale_d else 1.0)
    # the variance over batches of S, not of S − 1
    forms["minibatch_example"] = (
        by_example((x.mT @ y).square().sum((1, 2)), Moments.of(x.flatten(0, 1), y.flatten(0, 1)).C)
        / grow
    )
    forms["signal"] = forms["alpha"] * Moments.of(x.flatten(0, 1), y.flatten(0, 1)).Q
    forms["signal"] = forms["signal"] - forms["minibatch_example"]
    return forms


NAMES = ("gaussian", "sparse-sign", "uniform-rows", "feature-columns")


@pytest.mark.parametrize("right", [True, False])
def test_errors_are_those_of_leaving_examples_out(right):
    x, y = draw()
    rows = compare([pair_layer(x, y)], NAMES, RATE).set_index("estimator")
    whole, others = closed_forms(x, y), [without(x, y, s, right) for s in range(S)]
    for name in NAMES:
        assert rows.loc[name, "variance"] == pytest.approx(float(whole[name]), rel=1e-12)
        error = jackknife([float(one[name]) for one in others])
        ratio = jackknife([float(one[name] / one["minibatch_example"]) for one in others])
        agree = rows.loc[name, "variance_stderr"] == pytest.approx(error, rel=1e-9)
        assert agree == (right or name in ("gaussian", "feature-columns"))  # which have no D
        if right:
            assert rows.loc[name, "ratio_stderr"] == pytest.approx(ratio, rel=1e-9)
    for name in ("minibatch_row", "minibatch_example", "alpha", "signal"):
        error = jackknife([float(one[name]) for one in others])
        agree = rows[f"{name}_stderr"].iloc[0] == pytest.approx(error, rel=1e-9)
        assert agree == (right or name != "minibatch_row")


def test_what_has_no_sums_by_example_has_no_error_from_one_batch():
    rows = compare([pair_layer(*draw())], ["norm-rows", "rounding:2", "optimal-rows"], RATE)
    assert rows[["variance_stderr", "ratio_stderr"]].isna().all().all()
    assert rows[["variance", "ratio", "alpha_stderr"]].notna().all().all()


def test_norms_alone_say_nothing_of_a_ratio_where_the_gradient_is_not_small():
    """Without an example the variance would be negative, if ⟨g_s, G⟩ were ‖g_s‖²: the ratio of
    uniform rows that are examples, which is the same without any, would have an error.
    """
    x, y = (t[:, :1] for t in draw())
    layer = pair_layer(x + 1, y.abs())
    known, unknown = (
        compare([one], ["uniform-rows"], RATE).iloc[0]
        for one in (layer, replace(layer, inner=None))
    )
    assert known["ratio"] == unknown["ratio"] > 0
    assert known["ratio_stderr"] <= 1e-9 and np.isnan(unknown["ratio_stderr"])


def test_ratio_of_means_and_errors_over_batches():
    chosen = choices(["gaussian", "norm-rows"], RATE)
    pairs = [draw(seed) for seed in range(4)]
    lines = tabulate([read_batch([pair_layer(*pair)], chosen) for pair in pairs], chosen)
    rows = dict(zip(("gaussian", "norm-rows"), lines, strict=True))
    place = {name: i for i, name in enumerate(COLUMNS[2:])}
    each = [compare([pair_layer(*pair)], chosen).set_index("estimator") for pair in pairs]
    V, D2 = (
        np.array([[one.loc[name, key] for one in each] for name in rows])
        for key in ("variance", "minibatch_example")
    )
    for i, (name, line) in enumerate(rows.items()):
        assert line[place["batches"]] == 4
        assert line[place["variance"]] == pytest.approx(V[i].mean(), rel=1e-12)
        ratio = V[i].mean() / D2[i].mean()
        assert line[place["ratio"]] == pytest.approx(ratio, rel=1e-12)
        assert (V[i] / D2[i]).mean() != pytest.approx(ratio, rel=1e-3)
        others = [np.delete(V[i], b).mean() / np.delete(D2[i], b).mean() for b in range(4)]
        within = 0.0
        for b, (x, y) in enumerate(pairs):
            change = [
                (
                    V[i].mean() + (float(one["gaussian"]) - V[i][b]) / 4,
                    D2[i].mean() + (float(one["minibatch_example"]) - D2[i][b]) / 4,
                )
                for one in (without(x, y, s) for s in range(S))
            ]
            within += jackknife([v / d for v, d in change]) ** 2
        expected = max(jackknife(others), sqrt(within) if name == "gaussian" else 0.0)
        assert line[place["ratio_stderr"]] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("batches", [1, 4])
def test_errors_are_the_spread_of_redrawn_batches(batches):
    """Mean square of the errors over the variance that they are of; by chance alone 1 ± 0.06 for
    3000 of them, and above it over batches, where the larger of two errors is taken.
    """
    g = torch.Generator().manual_seed(0)
    g_s = torch.randn(3000, batches, 32, 6, generator=g, dtype=torch.float64)
    e, C = g_s.square().sum(-1), g_s.sum(-2).square().sum(-1)
    D2 = by_example_all(e, C)
    rest = (g_s.sum(-2, keepdim=True) - g_s).square().sum(-1)
    others = by_example_all(without_each(e), rest, 31) * 31 / 32 * (32 / 31) ** 2
    each = torch.cat([D2[..., None], others], -1)
    found = estimate(torch.clone, [each[:, b] for b in range(batches)])
    true = found.value.var()
    low, high = (0.9, 1.1) if batches == 1 else (1.0, 1.7)
    assert low < float(found.stderr.square().mean() / true) < high


def by_example_all(e, C, count=32):
    return (count * e.sum(-1) - C) / (count - 1) if e.shape[-1] != 1 else e


def without_each(e):
    """The squares of all examples but each, in a new last dimension."""
    size = e.shape[-1]
    keep = ~torch.eye(size, dtype=torch.bool)
    return torch.stack([e[..., keep[i]] for i in range(size)], -2)
