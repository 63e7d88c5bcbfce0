"""The paper's items: its quantities and their corrections, the bound with its conditions, and every
command.
"""

import itertools
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.noise.layer import pair_layer
from sketchvar.analysis.noise.table import compare
from sketchvar.analysis.paper import recorded, throughput
from sketchvar.analysis.paper.averaging import average_sketches, measure_average
from sketchvar.analysis.paper.items import ITEMS
from sketchvar.analysis.paper.probed import find_block
from sketchvar.analysis.paper.variance import correct, find_middle
from sketchvar.analysis.tasks import find_task
from sketchvar.estimators import CountSketch, Gaussian
from sketchvar.estimators.seeds import generator


def rows_of(x: torch.Tensor, y: torch.Tensor, rate: float = 0.5) -> pd.DataFrame:
    return compare(
        [pair_layer(x, y)], ["gaussian", "uniform-rows-iid"], [rate], torch.float32
    ).assign(step=0)


def pair(n: int = 6, p: int = 3, q: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = generator(seed)
    return torch.randn(n, p, generator=draw), torch.randn(n, q, generator=draw)


def test_the_paper_s_variance_is_that_of_sampling_rows_by_their_squared_norms():
    x, y = (t.double() for t in pair())
    found = correct(rows_of(x, y)).iloc[0]
    exact, share = x.T @ y, x.square().sum(1) / x.square().sum()
    k, mean = 3, 0.0
    for chosen in itertools.product(range(6), repeat=k):  # every outcome
        estimate = sum(torch.outer(x[i], y[i]) / (k * share[i]) for i in chosen)
        mean += (
            math.prod(share[i].item() for i in chosen) * (estimate - exact).square().sum().item()
        )
    assert found["k"] == k
    assert found["d_rmm"] == pytest.approx(mean, rel=1e-6)
    alpha = found["alpha"]
    assert found["variance"] / found["d_rmm"] == pytest.approx((1 + alpha) / (1 - alpha), rel=1e-6)
    assert found["variance"] != pytest.approx(
        mean, rel=0.05
    )  # must fail: the Gaussian's own is another


def test_the_paper_s_ratio_of_uniform_rows_is_one():
    x, y = pair()
    rows = rows_of(x, y)
    uniform = rows[rows["estimator"] == "uniform-rows-iid"].iloc[0]
    assert 3 / 5 * uniform["variance"] / uniform["minibatch_row"] == pytest.approx(1, rel=1e-5)


def test_the_bound_fails_where_the_stored_copies_say_it_holds():
    x, y = torch.tensor([[1.0], [2.0], [4.0], [8.0]]), torch.tensor([[1.0], [0.5], [0.25], [0.126]])
    found = correct(rows_of(x, y)).iloc[0]
    assert found["bound"] == pytest.approx(8.06, rel=0.01)
    assert found["ratio_paper"] > 1000 and not found["holds"] and not found["holds_corrected"]


def test_the_bound_holds_exactly_under_its_conditions():
    seen = set()
    for seed in range(200):
        x, y = (t.double() for t in pair(n=4, p=1, q=1, seed=seed))
        x, y = x.abs() + 0.1, (y.abs() + 0.1) / (x.abs() + 0.1) if seed % 2 else y.abs() + 0.1
        found = correct(rows_of(x, y)).iloc[0]
        n, C, D = 4, (x.T @ y).square().sum().item(), (x.square() * y.square()).sum().item()
        assert found["holds"] == (n * D >= 2 * C / (1 + found["alpha"]))
        assert found["holds_corrected"] == (n * D >= 2 * C)
        seen.add((bool(found["holds"]), bool(found["holds_corrected"])))
    assert seen == {(True, True), (True, False), (False, False)}  # all that can be


def test_the_mean_of_sketches_has_the_variance_of_one_divided_by_their_number():
    x, y = pair(n=40, p=4, q=3)
    layer = pair_layer(x, y)
    for estimator in (Gaussian(0.1), CountSketch(0.1)):
        found = measure_average(estimator, 4, x, y, draws=1000, seed=1)
        single = estimator.variance(layer.moments)
        assert abs(found.z(single / 4)) < 4.5
        assert abs(found.z(single / 4 * 1.3)) > 4.5  # must fail
    table = average_sketches(layer, ["gaussian", "countsketch"], 0.1, [1, 5], draws=20, seed=0)
    one = (
        table[table["count"] == 5].set_index("estimator")["one"]
        / table[table["count"] == 1].set_index("estimator")["one"]
    )
    assert one["gaussian"] == pytest.approx(
        1 / 5
    )  # independent columns: averaging is all that size does
    assert one["countsketch"] < 0.95 / 5  # a balanced sketch gains more from size


def test_recorded_values():
    mrpc = recorded.MEMORY[(recorded.MEMORY["task"] == "mrpc") & (recorded.MEMORY["rate"] == 0.2)]
    assert mrpc["ratio"].item() == pytest.approx(
        1 - 0.186, abs=0.01
    )  # what its text says, read off another way
    assert (recorded.MATMULS["seconds"].iloc[1:] > recorded.MATMULS["seconds"].iloc[0]).all()


def test_blocks_and_the_middle_layer():
    names = ["blocks.0.up", "blocks.0.down", "blocks.1.up", "head"]
    assert [find_block(name) for name in names[:3]] == [0, 0, 1] and math.isnan(find_block("head"))
    assert find_middle(pd.DataFrame({"layer": names})) == "blocks.1.up"
    assert find_middle(pd.DataFrame({"layer": ["a", "b", "c"]})) == "b"


def test_throughput_has_a_row_per_choice():
    task = find_task("digits-mlp", (("width", 16),))
    *_, rows = throughput.measure_throughput(
        "digits-mlp", task, ["gaussian", "rounding:2"], [0.5, 0.1], "cpu", 3
    )
    assert list(zip(rows["estimator"], rows["rate"], strict=True)) == [
        ("gaussian", 0.5), ("gaussian", 0.1), ("rounding:2", 1.0)
    ]  # fmt: skip
    assert (
        (rows["low"] <= rows["ratio"]).all()
        and (rows["ratio"] <= rows["high"]).all()
        and (rows["plain"] > 0).all()
    )


PROBE = ["--task", "digits-mlp", "--steps", "4"]
SWEEP = [*PROBE, "--evaluations", "1", "--seeds", "0", "1", "--batch-size", "20"]
WORDS = {
    "memory": ["--layers", "1", "--batch", "2", "--length", "8", "--rates", "0.5"],
    "time": ["--shapes", "64,8,8", "--repeats", "3"],
    "throughput": [*PROBE, "--repeats", "3"],
    "averaging": [*PROBE, "--draws", "5"],
    "damage": [
        "--task",
        "stdlib-lm",
        "--depth",
        "2",
        *SWEEP[2:6],
        "--seeds",
        "0",
        "--batch-size",
        "4",
    ],
    **dict.fromkeys(("score", "matmuls", "curves", "scratch", "architectures"), SWEEP),
    **dict.fromkeys(("variance", "axis", "quantised", "alpha"), PROBE),
    "depth": ["--task", "stdlib-lm", "--depth", "2", "--steps", "2", "--batch-size", "4"],
}


@pytest.mark.parametrize("item", ITEMS)
def test_every_item_draws_and_draws_again_from_its_rows(item, tmp_path, capsys):
    if item == "memory":
        pytest.importorskip("transformers")
    assert main(["paper", item, *WORDS[item], "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    assert (tmp_path / f"{item}.png").stat().st_size > 5000 and (tmp_path / f"{item}.pdf").exists()
    again = tmp_path / "again"
    assert main(["paper", item, "--from", str(tmp_path), "--out", str(again)]) == 0, (
        capsys.readouterr().err
    )
    assert (again / f"{item}.png").read_bytes() == (tmp_path / f"{item}.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["variance", *PROBE, "--layer", "9"], "no layer '9' was measured; known are 0, 2, 4"),
        (["averaging", *PROBE, "--rate", "0.5"], "8 sketches of rate 0.5 keep more than X"),
        (["score", "--from", "nowhere"], "nowhere/summary.parquet"),
        (["variance", "--task", "glue/cole"], "unknown task 'glue/cole'; did you mean 'glue/cola'"),
        (["quantised", *PROBE, "--estimators", "rounding:3"], "needs bits of 1, 2, 4 or 8"),
    ],
)
def test_bad_input_is_one_line(words, says, tmp_path, capsys):
    assert main(["paper", *words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error


def test_rows_of_a_study_know_their_task(tmp_path, capsys):
    assert main(["paper", "alpha", *PROBE, "--out", str(tmp_path)]) == 0
    assert records.read_json(tmp_path / "run.json")["study"]["task"] == "digits-mlp"


def test_several_tasks_are_panels_or_refused(tmp_path, capsys):
    folders = [
        str(Path(__file__).parents[2] / "data" / "train" / task)
        for task in ("stdlib-lm", "cifar10-vit")
    ]
    assert main(["paper", "score", "--from", *folders, "--out", str(tmp_path)]) == 0, (
        capsys.readouterr().err
    )
    assert (tmp_path / "score.png").exists()
    assert main(["paper", "curves", "--from", *folders, "--out", str(tmp_path / "none")]) == 2
    assert (
        "draws one task at a time; --from holds stdlib-lm, cifar10/vit" in capsys.readouterr().err
    )
    assert not (tmp_path / "none").exists()
