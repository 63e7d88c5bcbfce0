"""Forks: where uniform rows are a smaller batch by construction, and what is read off exact
ones.
"""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis.cost import beside, cost, effective_batches, forks
from sketchvar.analysis.cost.effective import read_off
from sketchvar.analysis.cost.predict import FACTORS, joined
from sketchvar.analysis.cost.state import first_part
from sketchvar.analysis.noise.cost import Draws
from sketchvar.analysis.noise.horizon import Dynamics
from sketchvar.analysis.noise.metric import steps_of
from sketchvar.analysis.noise.progress import PROGRESS, measure_progress

P, Q, B = 4, 3, 32


def batches(count: int, seed: int, size: int = B) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Targets that no weights reach: all of the gradient is noise near the optimum."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, size, P, generator=g)
    return list(zip(x, torch.randn(count, size, Q, generator=g), strict=True))


def squared(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def start(rate: float = 0.3) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(P, Q, bias=False)
    nn.init.zeros_(model.weight)  # the optimum
    return model, torch.optim.SGD(model.parameters(), rate)


@pytest.fixture(scope="module")
def forked():
    model, optimizer = start()
    held_out = batches(1, 1, 4096)
    return forks(
        model,
        squared,
        batches(200, 2),
        ["uniform-rows:0.25"],
        optimizer,
        steps=8,
        count=24,
        tuning=1,
        factors=(1.0,),
        evaluation=held_out,
    )


def test_uniform_rows_of_one_layer_are_a_smaller_batch(forked):
    """A row is an example there, so a quarter of the rows is a quarter of the batch."""
    line = forked.table[(forked.table["estimator"] == "uniform-rows") & forked.table["tuned"]]
    assert line["inside"].item()
    assert line["low"].item() < 0.25 < line["high"].item()
    assert line["high"].item() < 0.5  # must fail
    exact = forked.table[(forked.table["estimator"] == "exact") & forked.table["tuned"]]
    np.testing.assert_allclose(exact["effective"], exact["fraction"], rtol=0.2)
    assert (exact["loss"].diff().dropna() > 0).all()  # smaller batches end higher


def test_and_their_cost_ratio_says_so_at_every_horizon(forked):
    model, optimizer = start()
    costs = cost(
        model,
        squared,
        batches(500, 3),
        ["uniform-rows:0.25"],
        optimizer,
        horizon=(1, 8, math.inf),
        draws=48,  # spectra of half of them
        nodes=6,
    )
    table = costs.table
    for ratio in ("variance_ratio", "metric_ratio", "cost_ratio"):
        off = (table[ratio] - 3).abs()
        assert (off < 4 * table[f"{ratio}_stderr"]).all()
        assert (table[f"{ratio}_stderr"] < 0.2 * 3).all()
    both = beside(forked.table, costs, 8)
    assert (both["off_cost"].dropna().abs() < 2).all() and both["off_cost"].notna().any()
    # at the optimum there is nothing to gain, and noise is least where no step is taken: the
    # joined prediction is of the ratio at the smallest rate
    for tuned in (True, False):
        line = both[both["by_both"].notna() & (both["tuned"] == tuned)]
        assert abs(line["by_both"].item() - 0.25) < 4 * line["by_both_stderr"].item() + 0.03


def end(x, signal, noise, factor, steps, beta=0.9):
    """The expected loss that is lost by noise less what is gained, one direction at a time: by the
    answers of plain loops to an error at the start and at each step.
    """
    total = 0.0
    for h, s, n in zip(x, signal, noise, strict=True):

        def run(z, m, hit=-1, h=h):
            for step in range(steps):
                m = beta * m + (1 - beta) * (h * z + (step == hit))
                z = z - factor * m
            return z

        start = float(Dynamics(beta).mode(np.float64(h)))
        total += 0.5 * h * n * sum(run(0.0, 0.0, hit) ** 2 for hit in range(steps))
        total -= 0.5 * s / h * (1 - run(1.0, start) ** 2)
    return total


def test_the_joined_prediction_is_what_a_quadratic_does():
    x = np.array([0.003, 0.03, 0.3, 3.0])
    powers = {
        "mean of the gradients": np.array([0.3, 0.2, 0.05, 0.01]),
        "minibatch": np.array([1.0, 2.0, 2.0, 1.0]),
        "e": np.array([10.0, 3.0, 0.5, 0.0]),
    }
    pairs = 12  # of gradients, of which the first four have spectra
    powers["mean of the gradients"] += powers["minibatch"] / (2 * pairs)
    lines = [
        (name, 1.0, "own", draw, node, weight)
        for name, each in powers.items()
        for draw in range(4)
        for node, weight in zip(x, each, strict=True)
    ]
    columns = ["noise", "rate", "seeds", "draw", "node", "weight"]
    nothing = pd.DataFrame()
    totals = pd.DataFrame({"noise": ["minibatch"] * pairs + ["e"] * 4})
    draws = Draws(totals, pd.DataFrame(lines, columns=columns), nothing, nothing, nothing)
    found = joined(draws, Dynamics(0.9), 10).iloc[0]
    assert found["by_both_stderr"] == pytest.approx(0, abs=1e-9)  # all draws are the same
    signal = powers["mean of the gradients"] - powers["minibatch"] / (2 * pairs)

    def best(noise) -> float:
        return min(end(x, signal, noise, factor, 10) for factor in FACTORS)

    goal = best(powers["minibatch"] + powers["e"])
    fractions = np.linspace(0.1, 1, 91)
    truth = fractions[np.argmin([abs(best(powers["minibatch"] / f) - goal) for f in fractions])]
    assert found["by_both"] == pytest.approx(truth, abs=0.02)
    used = [end(x, signal, powers["minibatch"], factor, 10) for factor in FACTORS]
    assert 0.2 < FACTORS[np.argmin(used)] < 6  # where no curvature is cut off
    assert abs(1 / (1 + powers["e"].sum() / powers["minibatch"].sum()) - truth) > 0.05  # must fail


def test_steps_shorten_as_adam_does():
    """By the optimizer itself: one parameter, gradients of constant square."""
    w = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    adam = torch.optim.Adam([w], 0.1, betas=(0.0, 0.9), eps=0.0)
    gradient = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    for _ in range(400):  # v̂ is its square
        w.grad = gradient.clone()
        adam.step()
    steps, squares = steps_of(adam, [w]), gradient.square()
    noise = torch.tensor([3.0, 0.0, 27.0], dtype=torch.float64)  # of the minibatch; an estimator's
    rows = pd.DataFrame(
        measure_progress(steps, squares, squares, noise, {("e", 0.1): 2 * noise}, "minibatch"),
        columns=PROGRESS,
    )
    for name, fraction, more in (
        ("minibatch", 0.5, noise),
        ("minibatch", 1.0, 0 * noise),
        ("e", 1.0, 2 * noise),
    ):
        state = copy.deepcopy(adam.state_dict())
        again = torch.optim.Adam([w], 0.1, betas=(0.0, 0.9), eps=0.0)
        again.load_state_dict(state)
        for _ in range(8):
            w.grad = (squares + more).sqrt()
            again.step()
        truth = float((steps_of(again, [w]).sizes * squares).sum() / (steps.sizes * squares).sum())
        mine = rows[(rows["noise"] == name) & (rows["fraction"] == fraction) & (rows["after"] == 8)]
        assert mine["progress"].item() == pytest.approx(truth, rel=1e-6)
    sgd = steps_of(torch.optim.SGD([w], 0.1), [w])
    assert measure_progress(sgd, squares, squares, noise, {}, "minibatch") == []


def test_forks_of_one_number_are_pairs():
    """The finest rounding is nearly exact: its losses follow those of exact training batch by
    batch.
    """
    model, optimizer = start()
    given = (model, squared, batches(60, 2), ["rounding:8"], optimizer)
    found = forks(*given, steps=4, count=4, tuning=1, factors=(1.0,), fractions=(1.0, 0.5))
    told = found.rows[~found.rows["tuning"]].pivot_table(
        index="fork", columns=["estimator", "fraction"], values="loss"
    )
    spread = told["exact", 1.0].std()
    assert (told["rounding:8", 1.0] - told["exact", 1.0]).abs().max() < 0.2 * spread
    again = forks(*given, steps=4, count=4, tuning=1, factors=(1.0,), fractions=(1.0, 0.5))
    pd.testing.assert_frame_equal(found.rows, again.rows)


def test_rates_are_tuned_and_the_grid_grows():
    """Far from the optimum the best of three rates is at the end: wider ones are tried, and only
    forks that did not tune are reported.
    """
    model, optimizer = start(0.01)
    nn.init.ones_(model.weight)
    given = (model, squared, batches(60, 2), ["countsketch:0.5"], optimizer)
    found = forks(*given, steps=4, count=3, tuning=1, fractions=(1.0, 0.5))
    assert found.table.loc[found.table["tuned"], "factor"].min() >= 4  # 2 was asked for
    assert set(found.table.loc[~found.table["tuned"], "factor"]) == {1.0}
    assert (found.table["forks"] == 3).all()
    best, common = (found.table[found.table["tuned"] == t]["loss"].min() for t in (True, False))
    assert best < common
    kept: list[pd.DataFrame] = []
    again = forks(
        *given,
        steps=4,
        count=3,
        tuning=1,
        fractions=(1.0, 0.5),
        known=found.rows.iloc[:-2],
        keep=kept.append,
    )
    assert len(kept) == 2  # the rest was known
    pd.testing.assert_frame_equal(again.rows, found.rows)


def test_a_fork_that_diverges_counts_as_the_worst():
    model, optimizer = start(1e6)
    found = forks(
        model,
        squared,
        batches(60, 2),
        [],
        optimizer,
        steps=30,
        count=2,
        tuning=1,
        factors=(1.0, 1e-6),
        fractions=(1.0, 0.5),
    )
    assert np.isinf(found.rows["loss"]).any()
    assert found.table.loc[found.table["tuned"], "factor"].max() <= 1e-6


def test_what_is_read_off_and_its_interval():
    fractions = np.array([1.0, 0.5, 0.25, 0.125])
    exact = 2 + 0.1 / fractions
    np.testing.assert_allclose(
        read_off(exact, fractions, np.array([2.3, 2.25, 1.0, 9.0])), [1 / 3, 0.4, 1.0, 0.125]
    )
    level = np.array([2.1, 2.2, 2.15, 2.9])  # of two that stand the wrong way round: their mean
    assert read_off(level, fractions, np.array([2.175]))[0] == pytest.approx(0.5)
    # coverage of the interval, by losses of a known law
    rng, hits, tight = np.random.default_rng(1), 0, 0
    for _ in range(25):
        common = rng.normal(0, 0.05, 12)
        lines = [
            ("exact", 1.0, f, 1.0, False, k, 2 + 0.1 / f + common[k] + rng.normal(0, 0.02))
            for f in fractions
            for k in range(12)
        ]
        lines += [
            ("e", 1.0, 1.0, 1.0, False, k, 2.25 + common[k] + rng.normal(0, 0.02))
            for k in range(12)
        ]
        lines += [(n, r, f, 1.0, True, k, x) for n, r, f, _, _, k, x in lines]
        columns = ["estimator", "rate", "fraction", "factor", "tuning", "fork", "loss"]
        table = effective_batches(pd.DataFrame(lines, columns=columns))
        line = table[(table["estimator"] == "e") & table["tuned"]]
        hits += line["low"].item() < 0.4 < line["high"].item()
        tight += line["high"].item() < 0.5
    assert hits >= 19 and tight >= 20  # 95 % of 25 is 24; a bootstrap of 12 covers a little less


def test_parts_of_a_batch():
    x, weight = torch.arange(8).reshape(4, 2), torch.ones(2)
    cut = first_part({"x": x, "more": (x[:, :1], weight), "name": "a"}, 0.5)
    assert cut["x"].tolist() == [[0, 1], [2, 3]] and len(cut["more"][0]) == 2
    assert cut["more"][1] is weight and cut["name"] == "a"
    assert first_part(x, 1.0) is x and len(first_part(x, 0.01)) == 1
    with pytest.raises(ValueError, match="has no part to train on"):
        first_part(torch.tensor(1.0), 0.5)


def test_bad_input():
    model, optimizer = start()
    given = (model, squared, batches(60, 2), [], optimizer)
    with pytest.raises(ValueError, match="forks need 1 step, 2 of each method"):
        forks(*given, count=1)
    with pytest.raises(ValueError, match="hold 1, the whole batch"):
        forks(*given, fractions=(0.5, 0.25))
    with pytest.raises(ValueError, match="hold 1, the whole batch"):
        forks(*given, factors=(2.0, -1.0, 1.0))
