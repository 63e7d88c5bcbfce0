"""Training at several learning rates: each method is reported at its own best, of which no loss
that is reported had a say.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.small_sweep import GRID, WORDS

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.report.sweep import read
from sketchvar.analysis.sweep.cell import train
from sketchvar.analysis.sweep.figures import validation_curves
from sketchvar.analysis.sweep.outcome import pool, select_final
from sketchvar.analysis.sweep.tuned import at_best_rates

MEMORY = pd.DataFrame({"same_memory_batch": [20]})


def runs(losses, estimator="gaussian"):
    """Rows of runs that end with these losses: factor -> those of seeds 0, 1, ..."""
    return pd.DataFrame(
        {
            "cell": f"{estimator} {factor} {seed}",
            "estimator": estimator,
            "rate": 0.1,
            "batch": 16,
            "checkpointing": False,
            "layers": "*",
            "ratio": 1.0,
            "factor": factor,
            "seed": seed,
            "step": step,
            "validation": loss + (10 - step),
        }
        for factor, of_seeds in losses.items()
        for seed, loss in enumerate(of_seeds)
        if loss is not None
        for step in (0, 10)
    )


def chosen(rows):
    kept = at_best_rates(rows).drop_duplicates("cell")
    return [tuple(each) for each in kept[["seed", "factor"]].sort_values("seed").to_numpy()]


def test_each_seed_has_the_rate_that_is_best_over_the_others():
    # the mean over all is least at 2; seed 0 is best at 1, and without seed 2 the rate 1 is best
    rows = runs({1.0: (1.0, 2.0, 5.0), 2.0: (1.5, 2.1, 2.0)})
    assert chosen(rows) == [(0, 2), (1, 2), (2, 1)]
    assert len(at_best_rates(rows)) == 6  # whole runs
    both = pd.concat([rows, runs({1.0: (1, 1, 1), 2.0: (3, 3, 3)}, "rounding:2")])
    kept = at_best_rates(both).query("estimator == 'rounding:2'")
    assert set(kept["factor"]) == {1.0}  # methods choose for themselves


def test_rates_are_compared_on_the_seeds_that_all_of_them_have():
    # seed 3 is easy, and was trained at rate 1 alone: that is no merit of the rate
    rows = runs({1.0: (2.0, 2.0, 2.0, 0.0), 2.0: (1.9, 1.9, 1.9, None)})
    assert chosen(rows) == [(0, 2), (1, 2), (2, 2)]
    alone = runs({1.0: (1.0,), 2.0: (0.5,)})
    assert chosen(alone) == [(0, 1)]
    older = rows.drop(columns="factor")
    assert at_best_rates(older) is older


def test_rows_of_older_sweeps_beside_newer_ones():
    """They know neither factors nor longer runs: concatenated, their columns are NaN."""
    newer = runs({1.0: (1.0, 2.0, 5.0), 2.0: (1.5, 2.1, 2.0)}).assign(longer=False)
    older = runs({1.0: (3.0, 4.0, 5.0)}, "exact").drop(columns="factor")
    both = pd.concat([older, newer], ignore_index=True)
    assert chosen(both.query("estimator == 'exact'")) == [(0, 1), (1, 1), (2, 1)]
    finals = pool(select_final(at_best_rates(both)), "validation").table
    assert list(finals.index) == [("exact", 0.1, 16), ("gaussian", 0.1, 16)]
    assert finals.to_numpy().tolist() == [[3.0, 4.0, 5.0], [1.5, 2.1, 5.0]]


def test_choosing_on_other_seeds_does_not_flatter():
    """Where all rates are equal the mean of what is kept is that of a single run; keeping the best
    of each seed (must fail) is lower by more than half a standard deviation.
    """
    rng = np.random.default_rng(0)
    kept, best = [], []
    for _ in range(150):
        drawn = rng.normal(size=(3, 4))
        rows = runs(dict(zip((0.5, 1.0, 2.0), drawn, strict=True)))
        final = at_best_rates(rows).query("step == 10")
        kept.append(final["validation"].mean())
        best.append(drawn.min(0).mean())
    error = np.std(kept) / len(kept) ** 0.5
    assert abs(np.mean(kept)) < 4 * error
    assert np.mean(best) < -0.5


def test_a_factor_is_of_the_learning_rate_and_older_cells_keep_their_names():
    tuned = replace(GRID, factors=(0.5, 1.0))
    cells, plain = tuned.cells(MEMORY), GRID.cells(MEMORY)
    assert {cell.name for cell in plain} < {cell.name for cell in cells}
    assert len(cells) == 2 * len(plain) - 1  # checkpointing tells time and memory: once
    half = next(cell for cell in cells if cell.factor == 0.5)
    task = half.make_task()
    assert task.learning_rate == replace(half, factor=1.0).make_task().learning_rate / 2
    asked = replace(
        half, factor=1.0, options=(*half.options, ("learning_rate", task.learning_rate))
    )
    assert train(half)["validation"].equals(train(asked)["validation"])
    assert "x0.5" in half.name and set(train(half)["factor"]) == {0.5}


def test_the_command_reports_each_method_at_its_best(tmp_path):
    out, seeds = tmp_path / "out", WORDS.index("--seeds")
    words = [*WORDS[:seeds], "--seeds", "0", "1", *WORDS[seeds + 2 :], "--out", str(out)]
    main([*words, "--quiet"])
    before = {file.name for file in (out / "cells").iterdir()}
    assert "× rate" not in {column.title for column in read(out).tables[0].columns}
    main([*words, "--factors", "30", "--quiet"])  # goes on in the folder
    assert before < {file.name for file in (out / "cells").iterdir()}
    assert "× rate" in {column.title for column in read(out).tables[0].columns}
    rows = records.read_rows(out / "rows.parquet")
    assert set(rows["factor"]) == {1, 30}
    drawn, best = (
        [line.get_ydata().tolist() for line in validation_curves(each).lines]
        for each in (rows, at_best_rates(rows))
    )
    assert drawn == best
    table = records.read_rows(out / "summary.parquet")
    final = at_best_rates(rows).query("step == step.max() and not checkpointing")
    found = table.query("not checkpointing").set_index(["estimator", "batch"])["validation"]
    mean = final.groupby(["estimator", "batch"])["validation"].mean()
    pd.testing.assert_series_equal(found.sort_index(), mean.sort_index(), check_names=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"factors": (0.0,)}, "factors"), ({"factors": (2.0,), "seeds": (0,)}, "two seeds or more")],
)
def test_bad_factors(change, says):
    with pytest.raises(ValueError, match=says):
        replace(GRID, **change)


def test_for_as_many_examples_is_exact_training_with_more_updates():
    cells = replace(GRID, equal_examples=True).cells(MEMORY)
    assert {cell.name for cell in GRID.cells(MEMORY)} < {cell.name for cell in cells}
    longer = [cell for cell in cells if cell.longer]
    whole = GRID.exact()
    assert len(longer) == len(GRID.seeds) and {cell.batch for cell in longer} == {20}
    one = longer[0]
    assert one.steps == round(whole.steps * whole.batch / 20) == one.evaluate_at[-1]
    plain = replace(one, longer=False)
    assert train(one)["validation"].equals(train(plain)["validation"])
    assert plain.name != one.name and train(one)["longer"].all()


def test_the_command_sets_methods_beside_as_many_examples(tmp_path):
    out = tmp_path / "out"
    words = ["train", "--set", "width=16", "heads=2", "length=16", "--depth", "1", "--quiet"]
    words += ["--batch-size", "8", "--steps", "4", "--evaluations", "1", "--seeds", "0", "1"]
    words += ["--estimators", "uniform-rows", "--rates", "0.1", "--fractions", "--out", str(out)]
    main(words)
    assert "− same examples" not in {column.title for column in read(out).tables[0].columns}
    main([*words, "--equal-examples"])  # goes on in the folder
    contents = read(out)
    assert "− same examples" in {column.title for column in contents.tables[0].columns}
    assert any("for as many examples" in sentence for sentence in contents.verdict)
    rows = records.read_rows(out / "rows.parquet")
    last = rows.drop_duplicates("cell", keep="last").query("not checkpointing")
    ends = last.groupby(["estimator", "batch", "longer"])["validation"].mean()
    table = records.read_rows(out / "summary.parquet").set_index("estimator")
    sketched = table.loc["uniform-rows"]
    small = int(sketched["same_memory_batch"])
    assert set(last.query("longer")["batch"]) == {small}
    mine = ends["uniform-rows", sketched["batch"], False]
    assert sketched["validation_examples"] == pytest.approx(mine - ends["exact", small, True])
    assert sketched["validation_smaller"] == pytest.approx(mine - ends["exact", small, False])
    assert (table["seeds"] <= 2).all()  # longer runs are no more seeds of the shorter ones
