"""The training loop: whoever trains a task reaches the weights of a loop written out by hand."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis import scores
from sketchvar.analysis.loop import layers_at, start
from sketchvar.analysis.study.study import Study, run
from sketchvar.analysis.sweep.cell import Cell, train
from sketchvar.analysis.sweep.grid import Grid
from sketchvar.analysis.tasks import TASKS, find_task
from sketchvar.analysis.tasks.task import Task, Validation
from sketchvar.analysis.truth import redraws
from sketchvar.estimators.seeds import fold

CPU, STEPS, SEED = torch.device("cpu"), 5, 3


@dataclass(frozen=True)
class Recorded(Task):
    """A task that notes the weights at which the loss of each step is computed.

    With dropout, a schedule and bfloat16, so that another seed, number of steps or precision shows.
    """

    steps: int = 50
    measure_at: tuple[int, ...] = (0,)
    batch_size: int = 8
    learning_rate: float = 1e-2
    precision: str = "bfloat16"
    warmup: float | None = 0.2
    at: list[int] = field(default_factory=list)
    weights: dict[int, list[float]] = field(default_factory=dict)

    population = None

    def model(self):
        return nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.GELU(), nn.Linear(16, 3))

    def batch(self, step, seed):
        self.at[:] = [step]
        draw = torch.Generator().manual_seed(100 * step + seed % 97)
        inputs = torch.randn(self.batch_size, 6, generator=draw)
        return inputs, inputs[:, :3].argmax(1)

    def loss(self, model, batch):
        now = [p.double().sum().item() for p in model.parameters()]
        before = self.weights.setdefault(self.at[0], now)
        assert before == now, f"two losses of step {self.at[0]} have different weights"
        inputs, targets = batch
        return F.cross_entropy(model(inputs).float(), targets)

    def validate(self, model, device):
        return Validation(0.0, 0.0)

    def provenance(self):
        return {}


@pytest.fixture
def task(monkeypatch):
    task = Recorded()
    monkeypatch.setitem(TASKS, "recorded", task)
    return task


@pytest.fixture
def weights(task):
    """The weights of every step, by a loop that is written out here."""
    torch.manual_seed(fold(SEED, "model"))
    model = task.model()
    optimizer = torch.optim.AdamW(
        model.parameters(), 1e-2, (0.9, 0.95), weight_decay=0.1, fused=True
    )
    for step in range(STEPS + 1):
        torch.manual_seed(fold(SEED, "step", step))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = task.loss(model, task.batch(step, SEED))
        loss.backward()
        # up in 0.2 · 5 = 1 update, then straight down to 0 after the last
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 if step == 0 else (5 - step) / 4)
        optimizer.step()
    found = dict(task.weights)
    task.weights.clear()
    assert len(found) == STEPS + 1 and len(set(map(tuple, found.values()))) == STEPS + 1
    return found


def test_a_study(task, weights, tmp_path):
    points = (0, 3, STEPS)
    run(Study("recorded", STEPS, points, ("uniform-rows",), (0.5,), seed=SEED), tmp_path / "a")
    assert task.weights == weights


def test_a_resumed_study(task, weights, tmp_path):
    study = Study("recorded", STEPS, (0, 2, STEPS), ("uniform-rows",), (0.5,), seed=SEED)
    run_until(study, tmp_path / "a", 3)
    task.weights.clear()
    run(study, tmp_path / "a", resume=True)
    assert task.weights == {step: weights[step] for step in range(3, STEPS + 1)}


class Stop(Exception):
    """What a test raises in place of a kill."""


def run_until(study, out, last):
    def stop(step, loss):
        if step == last:
            raise Stop

    with pytest.raises(Stop):
        run(study, out, progress=stop)


@pytest.mark.parametrize("points", [[STEPS], [0, 2]])
def test_layers_of_a_step(task, weights, points):
    """The schedule is that of the whole training, wherever it is measured."""
    found = layers_at(task, points, CPU, SEED, total=STEPS)
    assert [(step, set(layers)) for step, layers in found] == [(s, {"0", "3"}) for s in points]
    assert task.weights == {step: weights[step] for step in range(points[-1] + 1)}


def test_layers_of_a_step_end_the_training_unless_told(task, weights):
    list(layers_at(task, [1, STEPS], CPU, SEED))
    assert task.weights == weights
    task.weights.clear()
    list(layers_at(task, [1, STEPS], CPU, SEED, total=2 * STEPS))  # must fail: another schedule
    assert task.weights != weights


def test_redrawn_minibatches(task, weights, tmp_path):
    what = redraws.Redraws("recorded", STEPS, 3, "countsketch:0.5", seed=SEED)
    redraws.run(what, tmp_path / "a")
    assert task.weights == weights


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_cell_of_a_sweep(task, weights, checkpointing):
    train(Cell("recorded", (), "exact", 1.0, 8, checkpointing, SEED, STEPS, (0, 3, STEPS)))
    assert task.weights == {step: weights[step] for step in range(STEPS)}


def test_scores(task, weights, monkeypatch):
    """With layers that stay exact, as what they draw changes the weights."""

    def stop(step, loss):
        if step == STEPS:
            raise Stop

    monkeypatch.setattr(scores, "sketch_linears", lambda model, estimator: None)
    with pytest.raises(Stop):
        scores.scores(task, STEPS, 0.5, seed=SEED, progress=stop)
    assert task.weights == {step: weights[step] for step in range(STEPS)}


def test_a_step_is_a_function_of_the_step_alone(task, weights):
    training = start(task, STEPS, CPU, SEED)
    for step in range(STEPS):
        torch.rand(step)  # whatever somebody draws between the steps
        training.advance(step)
    task.loss(training.model, training.batch(STEPS))
    assert task.weights == weights
    assert all(p.grad is None for p in training.model.parameters())


def test_a_loss_that_is_not_finite_stops_whoever_trains(monkeypatch, tmp_path):
    wild = replace(TASKS["digits-mlp"], learning_rate=1e30)
    monkeypatch.setitem(TASKS, "digits-mlp", wild)
    says = r"the loss is (nan|inf) at step \d"
    with pytest.raises(FloatingPointError, match=says):
        redraws.run(redraws.Redraws("digits-mlp", 5, 3), tmp_path / "a")
    with pytest.raises(FloatingPointError, match=says):
        scores.scores(wild, 5, 0.5)
    with pytest.raises(FloatingPointError, match=says):
        list(layers_at(wild, [5], CPU, 0))


def test_the_smaller_batch_holds_as_much_in_the_precision_that_trains():
    """Counted by hand: 5 and 5 of 8 examples where bfloat16 trains, 7 and 6 were it float32."""
    options = (("width", 32), ("depth", 1), ("heads", 2), ("length", 16), ("batch_size", 8))
    options = (*options, ("precision", "bfloat16"))
    grid = Grid("stdlib-lm", options, ("countsketch",), (0.5, 0.1), (0,), steps=2, evaluations=1)
    assert grid.activations()["same_memory_batch"].tolist() == [5, 5, 8]


def test_a_layer_keeps_its_input_in_the_dtype_that_the_task_names():
    for precision in ("float32", "bfloat16"):
        options = (("width", 16), ("batch_size", 8), ("precision", precision))
        task = find_task("digits-mlp", options)
        ((_, layers),) = layers_at(task, [0], CPU, 0)
        assert task.dtype == getattr(torch, precision)
        # the first layer's X is the data themselves; the second one's is what the first has made
        assert layers["2"].dtype == task.dtype
