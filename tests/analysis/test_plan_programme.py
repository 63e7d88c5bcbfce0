"""The integer programme of plans, against every choice there is."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from sketchvar.analysis.plan.baselines import find_best_single, list_singles
from sketchvar.analysis.plan.programme import minimize_bytes, minimize_noise
from sketchvar.analysis.plan.totals import sum_layers


def made(seed, readers, choices=4):
    """A table of candidates at random; each of ``readers`` is a layer that reads the same as the
    others of its name.
    """
    random, lines = np.random.default_rng(seed), []
    sizes = {reader: random.integers(50, 200) for reader in readers}
    for i, reader in enumerate(readers):
        layer, first = f"{reader}{i}", f"{reader}{readers.index(reader)}"
        lines.append((layer, first, "exact", 1.0, sizes[reader], sizes[reader], 0.0))
        for j in range(1, choices):
            kept = sizes[reader] * j // choices
            lines.append(
                (
                    layer,
                    first,
                    "e",
                    j / choices,
                    kept,
                    sizes[reader],
                    random.lognormal() / j / len(readers),
                )
            )
    columns = [
        "layer",
        "input_of",
        "estimator",
        "rate",
        "kept_bytes",
        "x_bytes",
        "noise",
    ]
    return pd.DataFrame(lines, columns=columns)


def every_plan(table, total=sum):
    """(kept bytes, fraction, ratio) of all there are, in plain Python; a copy is counted once for
    all who share it.
    """
    lines = [list(part.itertuples()) for _, part in table.groupby("layer", sort=False)]
    whole = sum({line[0].input_of: line[0].x_bytes for line in lines}.values())
    for plan in product(*lines):
        kept = sum(
            {(row.input_of, row.estimator, row.rate): row.kept_bytes for row in plan}.values()
        )
        yield kept, kept / whole, total(row.noise for row in plan)


@pytest.mark.parametrize("readers", ["abcde", "aaabc", "aabbb"])
@pytest.mark.parametrize("seed", range(2))
def test_the_programme_is_the_best_of_all_plans(readers, seed):
    table = made(seed, readers)
    plans = np.array(list(every_plan(table)))
    for budget in (0.3, 0.5, 0.8, 1.0, min(float(np.median(plans[:, 1])), 1)):
        chosen = minimize_noise(table, budget)
        assert list(chosen["layer"]) == list(dict.fromkeys(table["layer"]))
        fits = plans[plans[:, 1] <= budget]
        assert sum_layers(chosen).fraction <= budget
        assert sum_layers(chosen).ratio == pytest.approx(fits[:, 2].min(), rel=1e-9, abs=1e-12)
    for ratio in (0.0, 0.3, 1.0, float(np.median(plans[:, 2]))):
        of = sum_layers(minimize_bytes(table, ratio))
        fits = plans[plans[:, 2] <= ratio]
        assert of.ratio <= ratio
        assert of.kept_bytes == fits[:, 0].min()
        assert of.ratio == pytest.approx(
            fits[fits[:, 0] == of.kept_bytes, 2].min(), rel=1e-9, abs=1e-12
        )


@pytest.mark.parametrize("readers", ["abcde", "aabbb"])
def test_the_least_largest_noise_of_a_layer(readers):
    """Then, among those, the least total."""
    table = made(3, readers)
    plans = np.array(list(every_plan(table, max)))
    totals = np.array([total for *_, total in every_plan(table)])
    for budget in (0.3, 0.5, 0.8, 1.0):
        of = minimize_noise(table, budget, largest=True)
        fits = plans[:, 1] <= budget
        least = plans[fits, 2].min()
        assert sum_layers(of).fraction <= budget
        assert sum_layers(of, largest=True).ratio == pytest.approx(least, abs=1e-12)
        same = totals[fits & (plans[:, 2] <= least)]
        assert sum_layers(of).ratio == pytest.approx(same.min(), abs=1e-9)
        blind = minimize_noise(table, budget)  # must fail: another plan where there is room
        assert sum_layers(blind).ratio <= sum_layers(of).ratio + 1e-12
    for ratio in (0.1, 0.3):
        of = minimize_bytes(table, ratio, largest=True)
        assert sum_layers(of, largest=True).ratio <= ratio
        assert sum_layers(of).kept_bytes == plans[plans[:, 2] <= ratio, 0].min()


def test_must_fail_a_plan_that_knows_nothing_of_sharing():
    """In most of these it keeps more bytes, counted rightly, than the best of all plans."""
    worse = 0
    for seed in range(4):
        table = made(seed, "aaabb")
        least = min(kept for kept, _, ratio in every_plan(table) if ratio <= 0.5)
        blind = minimize_bytes(table.assign(input_of=table["layer"]), 0.5)
        assert sum_layers(minimize_bytes(table, 0.5)).kept_bytes == least
        worse += sum_layers(table.loc[blind.index]).kept_bytes > 1.05 * least
    assert worse > 1


def test_a_plan_of_many_layers_is_within_its_budget_and_no_worse_than_single_choices():
    table = made(0, [f"l{i}." for i in range(30)], choices=8)
    found = list_singles(table)
    for budget in (0.3, 0.6):
        of, single = sum_layers(minimize_noise(table, budget)), find_best_single(found, budget)
        assert (
            of.fraction <= budget
            and of.ratio < single.totals.ratio
            and single.totals.fraction <= budget
        )
        back = sum_layers(minimize_bytes(table, of.ratio))
        assert back.fraction == pytest.approx(of.fraction, rel=1e-9) and back.ratio <= of.ratio
        other = find_best_single(found, ratio=single.totals.ratio)
        assert (
            other.totals.fraction <= single.totals.fraction
            and other.totals.ratio <= single.totals.ratio
        )


def test_a_budget_that_nothing_fits_says_the_least_possible():
    table = made(1, "aab")
    with pytest.raises(
        ValueError,
        match=r"no plan keeps at most 0\.01 of X's bytes; the least possible is (0\.\d+)",
    ) as e:
        minimize_noise(table, 0.01)
    least = float(str(e.value).split("possible is ")[1].split(":")[0])
    assert sum_layers(minimize_noise(table, least)).fraction == min(
        fraction for _, fraction, _ in every_plan(table)
    )


@pytest.mark.parametrize("budget", [0, -1, 1.01, 25, float("nan"), float("inf")])
def test_memory_out_of_range(budget):
    with pytest.raises(
        ValueError, match=r"a memory budget is a fraction of X's bytes, 0 to 1, got .*; write 0\.25"
    ):
        minimize_noise(made(0, "ab"), budget)


@pytest.mark.parametrize("budget", [-0.1, float("nan"), float("inf")])
def test_noise_out_of_range(budget):
    with pytest.raises(
        ValueError, match=r"a noise budget is a ratio to the minibatch variance, 0 or more, got "
    ):
        minimize_bytes(made(0, "ab"), budget)
