"""The noise scale over every minibatch of a small population, its moving averages by a z-test, and
what it means.
"""

from itertools import combinations, product

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis import noise
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.noise.scale import TOTAL, batch_fraction, noise_scale
from sketchvar.analysis.noise.table import COLUMNS, compare
from sketchvar.analysis.probe import Probe
from sketchvar.estimators import UniformRows
from sketchvar.estimators.seeds import generator

S = 3
BOUND = 4.5  # standard errors; a true value is further off for 7 of 10⁶ seeds


@pytest.fixture(scope="module")
def population():
    """Gradients of four examples in two layers, of every size."""
    g = torch.Generator().manual_seed(3)
    return [torch.randn(4, size, generator=g, dtype=torch.float64) + 0.5 for size in (6, 2)]


def rows_of(population, batches, loss="mean"):
    """Rows as a probe gives them, a step for each of these minibatches."""
    lines = []
    for step, batch in enumerate(batches):
        for name, gradients in zip("ab", population, strict=True):
            g_s = gradients[list(batch)] / (len(batch) if loss == "mean" else 1)
            C = g_s.sum(0).square().sum()
            minibatch = noise.by_example(g_s.square().sum(1), C)
            lines.append({"run": "", "step": step, "layer": name, "examples": len(batch)})
            lines[-1] |= {
                "minibatch_example": float(minibatch),
                "grad_sq": float(C),
                "variance": 2 * float(minibatch),
            }
    return pd.DataFrame(lines).assign(estimator="e", rate=0.5, ratio=2.0)


def truth(population):
    """(tr Σ, ‖E g‖²) of each layer and of both."""
    noise_ = [float(g.var(0, correction=0).sum()) for g in population]
    signal = [float(g.mean(0).square().sum()) for g in population]
    return dict(
        zip(
            ["a", "b", TOTAL],
            zip([*noise_, sum(noise_)], [*signal, sum(signal)], strict=True),
            strict=True,
        )
    )


@pytest.mark.parametrize("size", [2, S])
def test_both_parts_are_unbiased_over_every_minibatch(population, size):
    """Must fail: C itself for ‖E g‖², which the noise inflates."""
    rows = rows_of(population, product(range(4), repeat=size))
    found = noise_scale(rows, decay=0).groupby("layer")[["noise", "signal"]].mean()
    for layer, (tr_sigma, signal) in truth(population).items():
        assert found["noise"][layer] == pytest.approx(tr_sigma, rel=1e-12)
        assert found["signal"][layer] == pytest.approx(signal, rel=1e-12)
    inflated = rows[rows["layer"] == "a"]["grad_sq"].mean()
    assert inflated > 1.05 * truth(population)["a"][1]


def test_they_are_the_estimates_of_two_batch_sizes(population):
    """McCandlish et al. take ‖G_b‖² and ‖G_a‖² of batches of b and a examples; here b = S and
    a = 1.
    """
    batch = [0, 1, 2]
    found = noise_scale(rows_of(population, [batch]), decay=0).set_index("layer")
    for name, gradients in zip("ab", population, strict=True):
        one, whole = (
            gradients[batch].square().sum(1).mean(),
            gradients[batch].mean(0).square().sum(),
        )
        assert found["signal"][name] == pytest.approx(float((S * whole - one) / (S - 1)), rel=1e-12)
        assert found["noise"][name] == pytest.approx(float((one - whole) / (1 - 1 / S)), rel=1e-12)


def test_a_sum_loss_has_the_same_scale_as_a_mean(population):
    mean, summed = (noise_scale(rows_of(population, [(0, 1, 2)], loss)) for loss in ("mean", "sum"))
    pd.testing.assert_series_equal(mean["noise_scale"], summed["noise_scale"])
    assert mean["noise_scale"].notna().any()


def test_ratio_of_averages_is_true_and_average_of_ratios_is_not():
    """500 minibatches of an endless population, fixed size; the second is the must-fail control."""
    g = generator(0)
    tr_sigma, signal = 4.0, 0.5
    mean = torch.full((2,), (signal / 2) ** 0.5, dtype=torch.float64)
    draws = torch.randn(500, 8, 2, generator=g, dtype=torch.float64) * (tr_sigma / 2) ** 0.5 + mean
    rows = pd.concat([rows_of([d, d], [range(8)]).assign(step=i) for i, d in enumerate(draws)])
    each = noise_scale(rows, decay=0).query("layer == 'a'")
    last = noise_scale(rows, decay=0.9999).query("layer == 'a' and step == 499").iloc[0]
    for name, true in (("noise", tr_sigma), ("signal", signal)):
        z = (last[name] - true) / (each[name].std() / 500**0.5)
        assert abs(z) < BOUND
    ratio = last["noise"] / last["signal"]
    error = (
        (each["noise"] - ratio * each["signal"]).std() / 500**0.5 / last["signal"]
    )  # delta method
    assert abs(last["noise_scale"] - tr_sigma / signal) < BOUND * error
    plain = each["noise"] / each["signal"]
    assert abs(plain.mean() - tr_sigma / signal) > BOUND * error
    assert abs(plain.median() - tr_sigma / signal) > BOUND * error


def test_moving_averages_by_hand(population):
    rows = rows_of(population, [(0, 1, 2), (1, 1, 3), (0, 3, 3)])
    plain, averaged = (noise_scale(rows, decay).set_index(["layer", "step"]) for decay in (0, 0.75))
    weights = torch.tensor([0.75**2, 0.75, 1], dtype=torch.float64)
    for layer in ("a", "b", TOTAL):
        for name in ("noise", "signal"):
            by_hand = weights @ torch.tensor(plain[name][layer].to_numpy()) / weights.sum()
            assert averaged[name][layer, 2] == pytest.approx(float(by_hand), rel=1e-12)
        assert averaged["noise_scale"][layer, 2] == pytest.approx(
            averaged["noise"][layer, 2] / averaged["signal"][layer, 2], rel=1e-12
        )
    sums = plain["noise"]["a"] + plain["noise"]["b"]
    pd.testing.assert_series_equal(sums, plain["noise"][TOTAL], check_names=False)


def test_noise_that_hides_the_gradient_is_not_a_number():
    opposite = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    found = noise_scale(rows_of([opposite, opposite + 5], [(0, 1)])).set_index("layer")
    assert found["signal"]["a"] < 0
    assert found["noise_scale"].isna().tolist() == [True, False, False]


def test_one_example_has_neither_scale_nor_fraction():
    rows = rows_of([torch.ones(1, 2, dtype=torch.float64)] * 2, [(0,)]).assign(ratio=torch.nan)
    assert noise_scale(rows)["noise_scale"].isna().all()
    assert batch_fraction(rows)["fraction"].isna().all()


@pytest.mark.parametrize("decay", [1, -0.1, float("nan")])
def test_decay_that_makes_no_sense(population, decay):
    with pytest.raises(ValueError, match=r"decay must be 0 or more and less than 1, got "):
        noise_scale(rows_of(population, [(0, 1)]), decay)


def test_rows_of_two_runs_are_refused(population):
    rows = rows_of(population, [(0, 1)])
    with pytest.raises(
        ValueError, match="rows of 2 runs have no common moving average; give those of one"
    ):
        noise_scale(pd.concat([rows, rows.assign(run="other")]))


def test_the_fraction_is_a_smaller_batch(population):
    """A sketched step's variance over every minibatch and every draw is an exact one's on
    ``fraction`` of the batch.

    Uniform rows without replacement, 2 of 4: the fraction is a half. Must fail: the whole batch.
    """
    gradients, size, k = population[0], 4, 2
    exact = gradients.var(0, correction=0).sum()
    minibatches = gradients[torch.tensor(list(product(range(4), repeat=size)))] / size
    draws = torch.tensor(list(combinations(range(size), k)))
    sketched = minibatches[:, draws].sum(2) * size / k
    variance = (sketched - gradients.mean(0)).square().sum(-1).mean()
    added = (sketched - minibatches.sum(1, keepdim=True)).square().sum(-1).mean()
    ratio = float(added / (exact / size))
    line = {"step": 0, "layer": "a", "estimator": "e", "rate": 0.5, "ratio": ratio}
    rows = pd.DataFrame(
        [line | {"variance": float(added), "minibatch_example": float(exact / size)}]
    )
    for fraction in batch_fraction(rows)["fraction"]:
        assert fraction == pytest.approx(0.5, rel=1e-12)
        torch.testing.assert_close(variance, exact / (fraction * size), rtol=1e-12, atol=0)
    assert variance > 1.05 * exact / size


def test_a_total_is_of_sums_and_not_a_mean_of_fractions(population):
    rows = rows_of(population, [(0, 1, 2)])
    rows["variance"] = rows["minibatch_example"] * [3, 1]
    rows["ratio"] = [3.0, 1.0]
    found = batch_fraction(rows).set_index("layer")["fraction"]
    assert found[["a", "b"]].tolist() == [0.25, 0.5]
    assert found[TOTAL] == pytest.approx(
        1 / (1 + rows["variance"].sum() / rows["minibatch_example"].sum()), rel=1e-12
    )


def test_from_a_probe():
    """Rows of a training loop: against ‖∇‖ and every example's own gradient, by autograd one by
    one.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    with Probe(model) as probe:
        F.mse_loss(model(x), y).backward()
    table = compare(probe.read().values(), ["uniform-rows"], [0.5], torch.float64).assign(
        run="", step=0
    )[COLUMNS]
    found = noise_scale(table).set_index("layer")
    for name in ("0", "2"):
        weight = model.get_submodule(name).weight
        each = torch.stack(
            [
                torch.autograd.grad(F.mse_loss(model(a), b), weight)[0]
                for a, b in zip(x, y, strict=True)
            ]
        )
        tr_sigma = each.var(0).sum()
        signal = each.mean(0).square().sum() - tr_sigma / 6
        assert found["noise"][name] == pytest.approx(float(tr_sigma), rel=1e-9)
        assert found["signal"][name] == pytest.approx(float(signal), rel=1e-9)
    fractions = batch_fraction(table).set_index("layer")["fraction"]
    assert UniformRows(0.5).k(6) == 3 and fractions.tolist() == pytest.approx([0.5] * 3, rel=1e-9)


def test_in_a_runs_table_and_figures(tmp_path, capsys):
    words = [
        "run",
        "--task",
        "digits-mlp",
        "--steps",
        "1",
        "--rates",
        "0.5",
        "--estimators",
        "uniform-rows",
        "gaussian",
    ]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if "effective batch" in line]
    assert "50 %" in printed[0]
    assert (tmp_path / "run" / "noise_scale.png").stat().st_size > 10_000


def test_signal_of_finite_data_over_every_minibatch(population):
    """Drawn without replacement, C − (1 − S/N) D² is the squared gradient over all N on average; C
    − D² is not.
    """
    every = list(combinations(range(4), S))
    rows = rows_of(population, every)
    for known in (True, False):
        table = noise_scale(rows.assign(population=4.0) if known else rows, decay=0)
        for name, g in zip("ab", population, strict=True):
            signal = table.loc[table["layer"] == name, "signal"].mean()
            true = float(g.mean(0).square().sum())
            assert (signal == pytest.approx(true, rel=1e-10)) == known


def test_ratio_over_steps_of_an_epoch_over_every_order():
    """Data noise of the first steps of an epoch, over all its orders, and of independent draws."""
    g = torch.tensor([[1.0, 0.0], [2.0, -1.0], [-3.0, 0.5], [0.0, 4.0], [1.0, 1.0]]).double()
    one = float(g.var(0, correction=1).sum())  # of a batch of one example
    for steps in (1, 2, 4):
        sums = torch.stack([g[list(order)].sum(0) for order in combinations(range(5), steps)])
        noise_of_data = float(sums.var(0, correction=0).sum())
        found = noise.over_steps(0.5, batches=5, steps=steps)
        assert found == pytest.approx(0.5 * one * steps / noise_of_data, rel=1e-10)
    for steps in (5, -1):
        with pytest.raises(ValueError, match="less than the 5 batches of an epoch"):
            noise.over_steps(0.5, batches=5, steps=steps)


def test_errors_of_the_noise_scale_and_what_it_is_above():
    rows = pd.DataFrame(
        {
            "run": "", "step": [0, 1], "layer": "a", "examples": 10, "estimator": "e",
            "minibatch_example": [2.0, 2.0], "minibatch_example_stderr": [0.2, 0.2],
            "grad_sq": [12.0, 3.0], "signal_stderr": [1.0, 0.7],
        }
    )  # fmt: skip
    table = noise_scale(rows, decay=0)
    first, second = (table[(table["layer"] == "a") & (table["step"] == s)].iloc[0] for s in (0, 1))
    assert first["noise_scale"] == 2 and pd.isna(first["noise_scale_least"])
    assert first["noise_scale_stderr"] == pytest.approx(2 * (0.1**2 + 0.1**2) ** 0.5)
    assert second["noise_scale_least"] == pytest.approx(20 / (1 + 1.4))
    total = table[table["layer"] == TOTAL].set_index("step")
    assert total.loc[0, "noise_scale_stderr"] == pytest.approx(first["noise_scale_stderr"])
    half = noise_scale(rows, decay=0.5)
    last = half[(half["layer"] == "a") & (half["step"] == 1)].iloc[0]
    assert last["signal"] == pytest.approx((1 + 5) / 1.5)
    assert last["signal_stderr"] == pytest.approx((0.7**2 + 0.25 * 1.0**2) ** 0.5 / 1.5)
    two = pd.concat([rows, rows.assign(layer="b", signal_stderr=float("nan"))])
    unknown = noise_scale(two, decay=0)
    assert unknown[unknown["layer"] == TOTAL]["noise_scale_stderr"].isna().all()
    assert noise_scale(rows.drop(columns="signal_stderr"))["noise_scale_least"].isna().all()
