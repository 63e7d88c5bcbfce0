"""``truth``: closed forms beside redrawn minibatches, in a table, in a figure and on the command
line.
"""

from dataclasses import replace
from itertools import count, repeat

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis import records
from sketchvar.analysis.__main__ import main
from sketchvar.analysis.loop import start
from sketchvar.analysis.study.study import Study, run
from sketchvar.analysis.tasks import TASKS
from sketchvar.analysis.truth import intervals
from sketchvar.analysis.truth.redraws import train
from sketchvar.analysis.truth.rows import COLUMNS, bound, estimator_truth, truth
from sketchvar.estimators import CountSketch, TopRows, UniformRows
from sketchvar.estimators.seeds import fold, generator

LEVEL = 1e-4  # joint over the layers of a test
SMALL = replace(TASKS["stdlib-lm"], width=24, depth=1, heads=2, length=16, batch_size=8)
DIGITS = ["truth", "--task", "digits-mlp", "--steps", "3", "--draws", "20"]


def batches_of(task):
    return (task.batch(0, fold(1, i)) for i in count())


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    model = SMALL.model()
    shown = []
    return truth(model, SMALL.loss, batches_of(SMALL), 150, None, shown.append), shown


def test_by_example_is_true_and_by_row_is_not(transformer):
    """Must-fail control: the form by row, in the same table at the same level, is rejected."""
    rows, _ = transformer
    limit = bound(LEVEL, rows["example_z"], 150)
    assert list(rows.columns) == COLUMNS
    assert len(rows) == 7
    assert (rows["example_z"].abs() < limit).all()
    assert (rows["row_z"].abs() > limit).any()
    assert (rows["draws"] == 150).all() and (rows["examples"] == 8).all()
    apart = rows["example"] - rows["redrawn"]
    error = (rows["example_stderr"] ** 2 + rows["redrawn_stderr"] ** 2) ** 0.5
    pd.testing.assert_series_equal(rows["example_z"], apart / error, check_names=False)


def test_the_table_grows_draw_by_draw(transformer):
    rows, shown = transformer
    assert [int(table["draws"].max()) for table in shown] == [*range(3, 151), 150]
    pd.testing.assert_frame_equal(shown[-1], rows)


def test_finite_data_get_their_factor():
    """Two thirds of a small data set in every batch: with the factor 1 − S/N the form is true,
    without it it is not.
    """
    g = generator(0)
    x, y = torch.randn(30, 4, generator=g), torch.randn(30, 3, generator=g)

    def batches(seed):
        for i in count():
            rows = torch.randperm(30, generator=generator(fold(seed, i)))[:20]
            yield x[rows], y[rows]

    def loss(model, batch):
        return F.mse_loss(model(batch[0]), batch[1])

    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    z = [truth(model, loss, batches(1), 100, population)["example_z"] for population in (30, None)]
    assert abs(z[0].item()) < bound(LEVEL, z[0], 100) < abs(z[1].item())


def test_a_shared_weight_is_not_one_layers_to_redraw():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    x = torch.randn(400, 4)
    loader = (x[torch.randint(400, (10,))] for _ in count())
    rows = truth(model, lambda model, x: model(x).square().mean(), loader, 50).set_index("layer")
    assert rows["redrawn"].isna().tolist() == [True, False, True]
    assert rows["example_z"].isna().tolist() == [True, False, True]
    assert bound(0.01, rows["example_z"], 50) == bound(0.01, pd.Series([0.0]), 50)


def test_the_projections_of_attention_are_redrawn():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
    x = torch.randn(400, 3, 8)
    loader = (x[torch.randint(400, (10,))] for _ in count())
    rows = truth(block, lambda model, x: model(x).pow(3).mean(), loader, 100).set_index("layer")
    assert rows["redrawn"].notna().all() and rows.loc["self_attn.in_proj", "redrawn"] > 0
    assert rows["example_z"].abs().max() < bound(LEVEL, rows["example_z"], 100)


def test_a_batch_of_one_is_refused():
    model = nn.Linear(4, 3)
    with pytest.raises(
        ValueError, match=r"a batch of one example says nothing .*; take batches of 2 or more"
    ):
        truth(model, lambda model, x: model(x).square().mean(), repeat(torch.ones(1, 4)), 5)


def test_too_few_batches_are_refused_before_any_work():
    with pytest.raises(ValueError, match="the loader gives 9 batches, not 10"):
        truth(nn.Linear(4, 3), lambda model, x: pytest.fail("was run"), [torch.ones(2, 4)] * 9, 5)


def test_bound_is_joint():
    """A hundred true forms at once: the greatest |z| is beyond the bound as often as the level
    says, or less.
    """
    z = torch.randn(4000, 100, generator=generator(0), dtype=torch.float64).abs().amax(1)
    limit = bound(0.05, pd.Series(range(100)), 10**6)
    beyond = (z > limit).double().mean()
    room = 4.5 * (0.05 * 0.95 / 4000) ** 0.5
    assert abs(beyond - 0.05) < room
    single = bound(0.05, pd.Series([0]), 10**6)
    assert (z > single).double().mean() > 0.05 + room  # must fail: the bound for a single test


@pytest.mark.parametrize("estimator", [CountSketch(0.25), UniformRows(0.25)])
def test_an_estimator_beside_its_own_draws(estimator):
    torch.manual_seed(0)
    model = nn.Sequential(SMALL.model(), nn.Dropout(0.5))
    batch = SMALL.batch(0, 0)
    rows = estimator_truth(model, SMALL.loss, batch, estimator, 100)
    limit = bound(LEVEL, rows["z"], 100)
    assert len(rows) == 7
    assert (rows["z"].abs() < limit).all()
    assert (((rows["measured"] - 2 * rows["variance"]) / rows["stderr"]).abs() > limit).any()
    assert model.training and all(type(m).__name__ != "SketchedLinear" for m in model.modules())


def test_a_biased_estimator_has_nothing_to_set_beside_draws():
    with pytest.raises(
        ValueError, match=r"top-rows:0.5 is biased or has no closed form .*; choose another"
    ):
        estimator_truth(nn.Linear(4, 3), None, None, TopRows(0.5), 10)


def test_command(tmp_path, capsys):
    out = tmp_path / "truth"
    assert main([*DIGITS, "--estimator", "countsketch:0.1", "--out", str(out)]) == 0
    assert {file.name for file in out.iterdir()} == {
        *("truth.parquet", "estimator.parquet", "run.json", "truth.png", "truth.pdf")
    }
    rows = records.read_rows(out / "truth.parquet")
    assert set(rows["draws"]) == {20} and len(rows) == 3
    about = records.read_json(out / "run.json")
    assert about["population"] == TASKS["digits-mlp"].population and about["finished"]
    assert about["run"] == rows["run"].iloc[0] and rows["step"].iloc[0] == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "Closed forms over the variance of 20 redrawn minibatches" in printed
    assert "of 3 layers. A true form is so in all at once with probability 0.99." in printed
    assert "countsketch:0.1: closed form" in printed
    assert main([*DIGITS, "--out", str(out)]) == 2
    assert "holds a truth with estimator countsketch:0.1, not None" in capsys.readouterr().err
    assert main([*DIGITS, "--estimator", "countsketch:0.1", "--out", str(out), "--resume"]) == 0
    assert " ".join(capsys.readouterr().out.split()) == printed


def test_the_model_is_that_of_a_study(tmp_path):
    """The same task, seed and number of steps give a study's own gradient at its end."""
    task, steps = TASKS["digits-mlp"], 4
    study = Study("digits-mlp", steps, (steps,), ("exact",), (0.5,))
    rows = records.read_rows(run(study, tmp_path / "run") / "rows.parquet")
    training = start(task, steps, torch.device("cpu"), seed=0)
    train(training, lambda stage, done: None)
    model = training.model
    task.loss(model, task.batch(steps, 0)).backward()
    squares = [
        float(m.weight.grad.double().square().sum()) for m in model if isinstance(m, nn.Linear)
    ]
    assert rows["grad_sq"].tolist() == pytest.approx(squares, rel=1e-5)


@pytest.fixture
def dropout(monkeypatch):
    """The task with dropout, so that what a resumed run draws depends on torch's generator too."""
    plain = type(TASKS["digits-mlp"]).model
    monkeypatch.setattr(
        type(TASKS["digits-mlp"]),
        "model",
        lambda self: nn.Sequential(nn.Dropout(0.1), *plain(self)),
    )


@pytest.mark.parametrize(
    ("calls", "left"), [(2, 44), (3 + 2 * 9, 41), (3 + 2 * 10 + 1, 21), (3 + 40 + 1, 1)]
)
def test_a_stopped_run_goes_on_to_the_same_rows(
    tmp_path, monkeypatch, capsys, dropout, calls, left
):
    """Stopped in training, before the first write, after it, and before the estimator;
    ``left`` minibatches are still needed: nothing is measured twice but what came after the last
    write."""
    whole, out, words = (
        tmp_path / "whole",
        tmp_path / "truth",
        [*DIGITS, "--estimator", "countsketch:0.1"],
    )
    assert main([*words, "--out", str(whole)]) == 0
    batch, done = type(TASKS["digits-mlp"]).batch, []

    def interrupted(self, step, seed):
        done.append(seed)
        if len(done) == calls:
            raise KeyboardInterrupt
        return batch(self, step, seed)

    monkeypatch.setattr(type(TASKS["digits-mlp"]), "batch", interrupted)
    assert main([*words, "--out", str(out)]) == 2
    assert (
        f"interrupted; what was measured is kept, go on with --out {out} --resume"
        in capsys.readouterr().err
    )
    if left < 40:
        rows = records.read_rows(out / "truth.parquet")
        assert set(rows["draws"]) == {20 if left == 1 else 10} and rows["example_z"].notna().all()
    assert main([*words, "--out", str(out), "--resume"]) == 0
    assert len(done) - calls == left
    for name in ("truth", "estimator"):
        tables = (records.read_rows(folder / f"{name}.parquet") for folder in (whole, out))
        pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_resuming_what_cannot_go_on(tmp_path, capsys):
    out = tmp_path / "truth"
    assert main([*DIGITS, "--out", str(out)]) == 0
    assert main([*DIGITS, "--draws", "30", "--out", str(out), "--resume"]) == 2
    assert (
        "holds a truth with draws 20, not 30; resume it with its own options"
        in capsys.readouterr().err
    )
    about = records.read_json(out / "run.json")
    records.write_json(out / "run.json", about | {"finished": False})
    (out / "checkpoint.pt").write_bytes(b"cut short")
    assert main([*DIGITS, "--out", str(out), "--resume"]) == 2
    assert "checkpoint.pt is not readable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--task", "digit-mlp"], "unknown task 'digit-mlp'; did you mean 'digits-mlp'?"),
        (
            ["--draws", "2"],
            "--draws must be 3 or more, for a variance with a standard error, got 2",
        ),
        (["--steps", "-1"], "--steps must be 0 or more, got -1"),
        (["--resume"], "--resume needs --out"),
        (
            ["--batch-size", "1"],
            "--batch-size must be 2 or more, for a variance over examples, got 1",
        ),
        (["--estimator", "optimal-rows:0.1"], "optimal-rows"),
        (["--estimator", "countsketch"], "rate"),
        (["--model", "minilm"], "digits-mlp takes no pretrained"),
        (["--device", "cuda:77"], "device cuda:77 is not here"),
        (["--level", "1"], "--level must lie between 0 and 1, got 1"),
        (["--estimator", "countsketsh:0.1"], "countsketch"),
        (["--estimator", "top-rows:0.5"], "top-rows:0.5 is biased or has no closed form"),
    ],
)
def test_bad_input_is_one_line_before_any_work(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    assert main([*DIGITS, *words]) == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_bad_loss_in_the_middle(tmp_path):
    model, x = nn.Linear(4, 3), torch.ones(2, 4)
    batches = [x] * 9 + [x * torch.nan] * 3
    with pytest.raises(FloatingPointError, match="the loss is nan at draw"):
        truth(model, lambda model, x: model(x).square().mean(), batches, 6)
    assert model.weight.grad is None


def test_a_mean_over_tokens_of_examples_of_different_lengths(tmp_path):
    """Early in training, where the signal is strong, the form with weights holds in every layer
    and the form without does not.
    """
    small = ("width=16", "depth=1", "heads=2", "length=96", "batch_size=8", "shortest=1")
    words = ["truth", "--task", "stdlib-lm", "--steps", "0", "--draws", "120", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "a"), "--set", *small]) == 0
    rows = records.read_rows(tmp_path / "a" / "truth.parquet").set_index("layer")
    limit = bound(LEVEL, rows["example_z"], 120)
    assert (rows["example_z"].abs() < limit).all()
    assert rows.loc["head", "unweighted_z"] > limit
    assert rows.loc["head", "unweighted"] > 1.3 * rows.loc["head", "redrawn"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1.96, 1.96 / 3])
def test_intervals_hold_the_truth_and_a_third_of_them_does_not(tmp_path, monkeypatch, width):
    """A third of the width holds half of a normal distribution. Over 48 batches, errors that are
    known over batches alone are not asked for.
    """
    monkeypatch.setattr(intervals, "WIDTH", width)
    out = intervals.run(intervals.Intervals("digits-mlp", 20, 48), tmp_path / "a")
    rows = records.read_rows(out / "intervals.parquet")
    rows = rows[(rows["estimator"] != "norm-rows") & (rows["estimator"] != "uniform-rows")]
    covered = rows[rows["batches"] == 1].groupby("quantity")["covered"].mean()
    assert set(covered.index) == set(intervals.QUANTITIES)
    assert (covered > 0.85).all() if width == 1.96 else (covered < 0.75).all()


def test_command_of_intervals(tmp_path, capsys):
    out = tmp_path / "intervals"
    words = [*DIGITS, "--intervals", "--out", str(out)]
    words[words.index("--draws") + 1] = "32"
    assert main(words) == 0
    rows = records.read_rows(out / "intervals.parquet")
    assert set(rows["batches"]) == {1, 2, 4, 8} and set(rows["layer"]) == {"0", "2", "4"}
    assert rows.loc[rows["quantity"] == "ratio", "estimator"].nunique() == 3
    one = rows[rows["batches"] == 1].set_index(["quantity", "estimator"])
    assert (one.loc[[("variance", "norm-rows")], "known"] == 0).all()
    assert one.loc[("ratio", "gaussian"), "covered"].mean() > 0.8
    printed = " ".join(capsys.readouterr().out.split())
    assert "How many intervals hold the truth" in printed
    assert "of 32 / 16 / 8 / 4 measurements of 1 / 2 / 4 / 8 batches" in printed
    assert main(["report", str(out)]) == 0
    assert main([*words, "--estimator", "countsketch:0.1"]) == 2
    words[words.index("--draws") + 1] = "31"
    assert main(words) == 2
    assert "--draws must be 32 or more" in capsys.readouterr().err
