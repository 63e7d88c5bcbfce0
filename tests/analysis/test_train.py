"""Training runs: their rows, their baselines, what came of them over seeds, and the prediction."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from sketchvar.analysis.probe import Probe
from sketchvar.analysis.sweep.cell import COLUMNS, MEASURED, TIMED, Cell, train
from sketchvar.analysis.sweep.grid import Grid, find_peak, held, list_single_rows
from sketchvar.analysis.sweep.outcome import estimate_interval, select_final, summarize
from sketchvar.analysis.sweep.prediction import predict
from sketchvar.analysis.sweep.slowdown import count_steps
from sketchvar.analysis.tasks import TASKS, find_task
from sketchvar.estimators.seeds import fold

SMALL = Cell(
    "digits-mlp", (("width", 16),), "exact", 1.0, 50, False, seed=3, steps=6, evaluate_at=(0, 3, 6)
)
LM = (("width", 24), ("depth", 1), ("heads", 2), ("length", 16), ("batch_size", 12))


def lasting(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns=TIMED)


def test_exact_rows_are_those_of_a_plain_training_loop():
    rows = train(SMALL)
    assert list(rows.columns) == COLUMNS
    task = find_task("digits-mlp", (("width", 16), ("batch_size", 50)))
    torch.manual_seed(fold(3, "model"))
    model = task.model()
    optimizer = torch.optim.AdamW(
        model.parameters(), 1e-3, (0.9, 0.95), weight_decay=0.1, fused=True
    )
    losses = []
    for step in range(6):
        loss = task.loss(model, task.batch(step, 3))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert rows["train"].tolist()[1:] == [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    assert math.isnan(rows["train"][0])
    assert (rows["validation"].iloc[-1], rows["metric"].iloc[-1]) == task.validate(
        model, torch.device("cpu")
    )
    assert (rows["ratio"] == 0).all()
    assert (
        rows["seconds"].is_monotonic_increasing and rows["seconds"][0] == 0 and rows["peak"][0] > 0
    )


@pytest.mark.parametrize("estimator", ["gaussian", "centered(countsketch)", "rounding:2"])
def test_equal_cells_give_equal_rows_and_measuring_changes_nothing(estimator):
    cell = replace(SMALL, estimator=estimator, rate=0.2)
    rows = train(cell)
    pd.testing.assert_frame_equal(lasting(rows), lasting(train(cell)), check_exact=True)
    once = train(replace(cell, evaluate_at=(6,)))
    assert once["validation"].iloc[-1] == rows["validation"].iloc[-1]
    assert train(replace(cell, seed=4))["validation"].iloc[-1] != rows["validation"].iloc[-1]
    assert rows["validation"].iloc[-1] != train(SMALL)["validation"].iloc[-1]


def test_the_ratio_of_uniform_rows_is_that_of_a_smaller_batch():
    rows = train(replace(SMALL, estimator="uniform-rows", rate=0.2))
    assert rows["ratio"].tolist() == pytest.approx([4] * 3)  # (n − k) / k, in every layer and step
    assert rows["ratio_median"].tolist() == pytest.approx([4] * 3)
    assert select_final(rows)["fraction"].item() == pytest.approx(0.2)


def test_an_estimator_without_a_closed_form_has_no_ratio_and_trains():
    rows = train(replace(SMALL, estimator="countsketch+rounding:4", rate=0.5))
    assert rows["ratio"].isna().all()
    assert rows["validation"].iloc[-1] < rows["validation"].iloc[0]


def test_checkpointing_computes_the_same_and_leaves_less_for_backward():
    grid = Grid("stdlib-lm", LM, ("uniform-rows",), (0.25,), (0,), steps=2, evaluations=1)
    plain = grid.exact()
    again = replace(plain, checkpointing=True)
    same = [c for c in COLUMNS if c not in (*TIMED, "cell", "checkpointing")]
    pd.testing.assert_frame_equal(train(plain)[same], train(again)[same], check_exact=True)
    assert held(again, 12) < held(plain, 12)


def test_the_smaller_batch_is_the_largest_that_leaves_no_more_bytes():
    grid = Grid(
        "stdlib-lm", LM, ("uniform-rows", "rounding:2"), (0.5, 0.1), (0, 1), 2, 1, fractions=(0.5,)
    )
    memory = grid.activations()
    plain = grid.exact()
    assert list(zip(memory["estimator"], memory["rate"], strict=True)) == [
        ("uniform-rows", 0.5), ("uniform-rows", 0.1), ("rounding:2", 1.0), ("checkpointing", 1.0)
    ]  # fmt: skip
    for _, line in memory.iloc[:3].iterrows():
        batch = int(line["same_memory_batch"])
        assert 1 < batch < 12
        assert held(plain, batch) <= line["activations"] < held(plain, batch + 1)
        batch = int(line["same_peak_batch"])
        assert 1 < batch <= 12 and line["exact_peak"] == find_peak(plain, 12)
        assert find_peak(plain, batch) <= line["peak"]
        assert batch == 12 or line["peak"] < find_peak(plain, batch + 1)
    few = memory.set_index(["estimator", "rate"]).loc["uniform-rows", 0.1]
    assert few["same_memory_batch"] < few["same_peak_batch"]  # weights and optimizer are in a peak
    cells = grid.cells(memory)
    assert len({c.name for c in cells}) == len(cells)
    assert [c.seed for c in cells] == [0] * (len(cells) // 2 + 1) + [1] * (len(cells) // 2)
    assert [c.seed for c in cells if c.checkpointing] == [0]
    exact = {c.batch for c in cells if c.estimator == "exact"}
    assert exact == {12, 6, *memory["same_memory_batch"], *memory["same_peak_batch"]}
    peak = train(plain)["peak"].iloc[0]
    assert peak == pytest.approx(memory["exact_peak"].iloc[0], rel=0.02)  # what a run records


def test_only_the_layers_that_match_are_sketched():
    one = replace(SMALL, estimator="gaussian", rate=0.1, layers="2")
    assert (
        train(one)["validation"].iloc[-1] != train(replace(one, layers="*"))["validation"].iloc[-1]
    )
    with pytest.raises(ValueError, match=r"'9' matches no layer"):
        train(replace(one, layers="9"))
    embedding = Cell("stdlib-lm", LM, "gaussian", 0.5, 2, False, 0, 2, (2,), layers="bytes")
    with pytest.raises(
        ValueError, match=r"no layer of stdlib-lm matches 'bytes' and can be sketched"
    ):
        train(embedding)


def test_a_loss_that_is_not_finite_is_an_error(monkeypatch):
    monkeypatch.setitem(TASKS, "digits-mlp", replace(TASKS["digits-mlp"], learning_rate=1e30))
    threads = torch.get_num_threads()
    with pytest.raises(
        FloatingPointError, match=r"the loss is (nan|inf) at step \d of digits-mlp-exact"
    ):
        train(replace(SMALL, threads=threads + 1))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"estimators": ("gausian",)}, r"unknown estimator 'gausian'"),
        ({"estimators": ("optimal-rows",)}, r"y_sq"),
        ({"rates": (1.5,)}, r"0 < rate <= 1, got rate=1.5"),
        ({"fractions": (0.0,)}, r"0 < rate <= 1, got rate=0.0"),
        ({"seeds": (1, 1)}, r"seeds must be different, got 1 1"),
        ({"steps": 1}, r"needs 2 steps or more"),
        ({"evaluations": 0}, r"1 to 6 evaluations"),
        ({"task": "digit-mlp"}, r"unknown task 'digit-mlp'"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(change, says):
    good = {
        "task": "digits-mlp",
        "options": (),
        "estimators": ("gaussian",),
        "rates": (0.5,),
        "seeds": (0,),
        "steps": 6,
    }
    with pytest.raises(ValueError, match=says):
        Grid(**(good | {"evaluations": 2} | change))


def table(
    losses: dict[tuple[str, float, int, float], list[float]], noise: list[float]
) -> pd.DataFrame:
    """Rows as if trained: (estimator, rate, batch, ratio) -> loss at each of two steps; ``noise``
    is added by seed.
    """
    lines = []
    for (estimator, rate, batch, ratio), values in losses.items():
        for seed, shift in enumerate(noise):
            for step, loss in enumerate(values):
                cell = f"{estimator}{rate}{batch}{seed}"
                lines.append(
                    (
                        cell,
                        estimator,
                        rate,
                        batch,
                        False,
                        "*",
                        seed,
                        10 * step,
                        loss + shift,
                        loss,
                        ratio,
                        1.0,
                        1,
                    )
                )
    names = [
        "cell",
        "estimator",
        "rate",
        "batch",
        "checkpointing",
        "layers",
        "seed",
        "step",
        "validation",
        "metric",
    ]
    return pd.DataFrame(lines, columns=[*names, "ratio", "seconds", "peak"]).assign(
        task="digits-mlp"
    )


def test_an_interval_is_student_s_and_covers_the_mean_as_often_as_it_says():
    values = [1.0, 2.0, 4.0]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimate_interval(values)[1:] == pytest.approx(tuple(expected))
    assert estimate_interval([2.0])[0] == 2 and math.isnan(estimate_interval([2.0])[1])
    draws = np.random.default_rng(0).normal(size=(4000, 3))
    covered = np.mean([low <= 0 <= high for _, low, high in map(estimate_interval, draws)])
    error = 4.5 * math.sqrt(0.95 * 0.05 / 4000)  # a false alarm in 150,000
    assert abs(covered - 0.95) < error
    normal = np.mean([abs(d.mean()) <= 1.96 * d.std(ddof=1) / math.sqrt(3) for d in draws])
    assert abs(normal - 0.95) > error  # must fail: the normal interval


def test_a_summary_beside_its_baselines():
    """Pooled intervals are of differences, which take away what the seeds share."""
    noise = [0.0, 5.0, -3.0]
    rows = table(
        {
            ("exact", 1.0, 32, 0.0): [3.0, 1.0],
            ("gaussian", 0.1, 32, 9.0): [3.0, 1.5],
            ("rounding:2", 1.0, 32, 0.5): [3.0, 1.1],
            ("exact", 1.0, 8, 0.0): [3.0, 1.2],
            ("exact", 1.0, 16, 0.0): [3.0, 1.1],
        },
        noise,
    )
    rows["validation"] += 1e-3 * np.random.default_rng(0).normal(size=len(rows))
    names = {"estimator": ["gaussian", "rounding:2"], "rate": [0.1, 1.0]}
    memory = pd.DataFrame(names | {"same_memory_batch": [8, 16], "same_peak_batch": [16, 32]})
    found = summarize(rows, memory)
    line = found.set_index("estimator").loc["gaussian"]
    assert line["validation_exact"] == pytest.approx(0.5, abs=5e-3)
    assert line["validation_exact_high"] - line["validation_exact"] < 5e-3
    assert line["validation_high"] - line["validation"] > 5  # unpaired
    assert line["validation_smaller"] == pytest.approx(0.3, abs=5e-3)
    assert line["validation_peak"] == pytest.approx(0.4, abs=5e-3)
    assert line["fraction"] == pytest.approx(0.1) and line["seeds"] == 3
    few = found.set_index("estimator").loc["rounding:2"]
    assert math.isnan(few["validation_peak"]) and few["same_peak_batch"] == 32  # saves nothing
    # 4 to the whole batch, 2 to the same bytes, 1 to the same peak; of two values
    assert set(found["drawn"]) == {2 * 7 if found["metric_exact_p"].notna().any() else 7}
    assert (found["validation_exact_holm"] >= found["validation_exact_p"]).sum() == 4
    # exact training goes from 3 to 1 in 10 updates: it is at 1.5 after 7.5
    assert line["slowdown"] == pytest.approx(10 / 7.5, abs=0.01)
    assert line["slowdown_low"] < line["slowdown"] < line["slowdown_high"]


def test_a_summary_of_before_has_its_partner_of_the_same_peak_between_those_trained():
    losses = {("exact", 1.0, b, 0.0): [3.0, 3 - 0.2 * math.log2(b)] for b in (8, 32)}
    rows = table(losses | {("gaussian", 0.1, 32, 9.0): [3.0, 2.2]}, [0.0, 0.1])
    peaks = {8: 100, 32: 200}
    rows["peak"] = [150 if e == "gaussian" else peaks[b] for e, b in zip(
        rows["estimator"], rows["batch"], strict=True)]  # fmt: skip
    memory = pd.DataFrame({"estimator": ["gaussian"], "rate": [0.1], "same_memory_batch": [8]})
    line = summarize(rows, memory).set_index("estimator").loc["gaussian"]
    assert line["same_peak_batch"] == 20
    assert line["validation_peak"] == pytest.approx(2.2 - 3 + 0.2 * math.log2(20))


def test_layers_that_see_one_row_of_an_example_stay_exact(tmp_path):
    """The head of a transformer for images, and all that a perceptron has not."""
    draw = np.random.default_rng(0)
    for name in ("data_batch_1", "test_batch"):  # CIFAR-10's own files: a label, then pixels
        records = draw.integers(0, 10, (20, 3073), np.uint8)
        records.tofile(tmp_path / f"{name}.bin")
    options = (("data_dir", str(tmp_path)), ("width", 16), ("depth", 2), ("batch_size", 8))
    assert list_single_rows("cifar10/vit", options) == ("head",)
    grid = Grid("cifar10/vit", options, ("uniform-rows",), (0.5,), (0,), 2, 1)
    cell = grid.exact()
    assert (cell.layers, cell.left_out) == ("*", ("head",))
    assert replace(grid, layers="*").exact().left_out == ()
    some = replace(cell, estimator="uniform-rows", rate=0.5)
    rows, whole = train(some), train(replace(some, left_out=()))
    assert rows["validation"].iloc[-1] != whole["validation"].iloc[-1]
    assert rows["ratio"].iloc[0] != whole["ratio"].iloc[0]
    assert list_single_rows("digits-mlp", ()) == list_single_rows("stdlib-lm", LM) == ()


def test_a_prediction_is_exact_training_on_the_effective_batch():
    plain = {("exact", 1.0, b, 0.0): [4.0, 3 - 0.2 * math.log(b)] for b in (4, 8, 16, 32, 64)}
    as_predicted = {("gaussian", 0.1, 64, 3.0): [4.0, 3 - 0.2 * math.log(16)]}
    worse = {("countsketch", 0.1, 64, 3.0): [4.0, 1.05 * (3 - 0.2 * math.log(16))]}
    too_small = {("haar", 0.01, 64, 63.0): [4.0, 3.0]}
    rows = table(plain | as_predicted | worse | too_small, [0.0, 0.3, -0.2])
    found = predict(rows).set_index("estimator")
    assert found.loc["gaussian", "effective_batch"] == pytest.approx(16)
    assert found.loc["gaussian", ["error", "error_low", "error_high"]].tolist() == pytest.approx(
        [0, 0, 0], abs=1e-12
    )
    assert found.loc["countsketch", "error_low"] > 0.1
    assert found["inside"].to_dict() == {"gaussian": True, "countsketch": True, "haar": False}
    # the slowest run ends at 4 → 3: every run passes 3, the exact ones at batch b after 10 / (1 +
    # 0.2 log b) updates
    steps = predict(table(plain | as_predicted | too_small, [0.0, 0.0]), "steps").set_index(
        "estimator"
    )
    assert steps.loc["gaussian", "error"] == pytest.approx(0, abs=1e-9)
    assert steps.loc["gaussian", "observed"] == pytest.approx(10 / (1 + 0.2 * math.log(16)))
    with pytest.raises(
        ValueError, match="needs exact training on two batches or more; give --fractions"
    ):
        predict(table(as_predicted | {("exact", 1.0, 64, 0.0): [4.0, 3.0]}, [0.0]))


def test_predictions_by_metric_and_cost_stand_beside_that_by_the_ratio():
    """Each by its own ratio of a table of costs, over the horizon that was asked for."""
    plain = {("exact", 1.0, b, 0.0): [4.0, 3 - 0.2 * math.log(b)] for b in (4, 8, 16, 32, 64)}
    rows = table(plain | {("gaussian", 0.1, 64, 3.0): [4.0, 3 - 0.2 * math.log(32)]}, [0.0, 0.3])
    lines = [
        (step, "gaussian", 0.1, horizon, 7.0, cost)
        for step in (1, 2)
        for horizon, cost in ((1.0, 0.0), (10.0, 1.0), (math.inf, 7.0))
    ]
    columns = ["step", "estimator", "rate", "horizon", "metric_ratio", "cost_ratio"]
    costs = pd.DataFrame(lines, columns=columns)
    (line,) = predict(rows, costs=costs).to_dict("records")
    batches = [line[f"effective_batch{by}"] for by in ("", "_metric", "_cost")]
    assert batches == pytest.approx([16, 8, 32])
    errors = [line[f"error{by}"] for by in ("", "_metric", "_cost")]
    assert errors == pytest.approx([-0.2 * math.log(2), -0.2 * math.log(4), 0], abs=1e-12)
    assert {"predicted_cost_low", "error_metric_high", "error_cost_p"} <= set(line)
    (line,) = predict(rows, costs=costs, horizon=1).to_dict("records")
    assert line["effective_batch_cost"] == 64
    with pytest.raises(ValueError, match="no cost over a horizon of 3 was measured; there are 1"):
        predict(rows, costs=costs, horizon=3)
    (line,) = predict(rows).to_dict("records")
    assert not any("_metric" in name or "_cost" in name for name in line)


def test_steps_to_a_loss_lie_between_evaluations():
    run = pd.Series([4.0, 2.0, 1.0], index=[0, 10, 20])
    assert count_steps(run, 3.0) == 5
    assert count_steps(run, 2.0) == 10
    assert count_steps(run, 5.0) == 0
    assert math.isnan(count_steps(run, 0.5))


def test_a_plan_trains_each_layer_as_it_says():
    """One estimator for all layers, written as a plan, is the same run; and its ratio is over the
    exact layers too.
    """
    cell = replace(SMALL, estimator="uniform-rows", rate=0.2)
    names = list(Probe(cell.make_task().model()).watched)
    plan = tuple((name, "uniform-rows:0.2") for name in names)
    planned = train(replace(SMALL, estimator="plan:all", plan=plan))
    same = [name for name in MEASURED if name not in TIMED]
    pd.testing.assert_frame_equal(planned[same], train(cell)[same], check_exact=True)
    assert set(planned["estimator"]) == {"plan:all"} and not planned["takes_rate"].any()
    some = (*plan[:-1], (names[-1], "exact"))
    part = train(replace(SMALL, estimator="plan:some", plan=some))
    assert 0 < part["ratio"].iloc[0] < 3.9
    assert part["validation"].iloc[-1] != planned["validation"].iloc[-1]
    wrong = replace(SMALL, estimator="plan:wrong", plan=(("nowhere", "rounding:2"),))
    with pytest.raises(ValueError, match="'nowhere' matches no layer of the model"):
        train(wrong)
