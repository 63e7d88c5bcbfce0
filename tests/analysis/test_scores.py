"""Layers that learned their scores are set beside the oracle, on batches that they have not
seen.
"""

from dataclasses import dataclass, replace

import pandas as pd
import pytest
import torch
from torch import nn

from sketchvar.analysis.scores import scores, summary
from sketchvar.analysis.tasks.stdlib_lm import StdlibLM
from sketchvar.analysis.tasks.task import Task, Validation


@dataclass(frozen=True)
class FirstToken(Task):
    """Only the first of 16 positions has a loss; the last 8 are padding."""

    steps: int = 10
    measure_at: tuple[int, ...] = (0,)
    batch_size: int = 8
    learning_rate: float = 1e-4
    padded: bool = True

    population = None

    def model(self):
        return Reader()

    def batch(self, step, seed):
        g = torch.Generator().manual_seed(1000 * seed + step)
        mask = torch.ones(8, 16)
        mask[:, 8:] = 0
        inputs = {"x": torch.randn(8, 16, 12, generator=g)}
        return inputs | ({"attention_mask": mask} if self.padded else {}), torch.randn(
            8, 6, generator=g
        )

    def loss(self, model, batch):
        inputs, targets = batch
        weights = torch.linspace(0, 1, 16)[:, None]  # a little everywhere, so that padding matters
        out = model(inputs["x"])
        return (out[:, 0] - targets).square().mean() + 1e-2 * (out * weights).square().mean()

    def validate(self, model, device):
        return Validation(0.0, 0.0)

    def provenance(self):
        return {}


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.read = nn.Linear(12, 6)

    def forward(self, x):
        return self.read(x)


def test_learned_positions_close_most_of_the_gap():
    rows = scores(FirstToken(padded=False), steps=10, rate=0.1).set_index("estimator")
    assert rows.gap_closed["norm-rows"] == 0 and rows.gap_closed["optimal-rows"] == 1
    assert 0.6 < rows.gap_closed["scored-rows"] < 1
    assert (
        rows.variance["optimal-rows"]
        < rows.variance["scored-rows"]
        < 0.5 * rows.variance["uniform-rows"]
    )


def test_padding_that_the_mask_names_gets_no_score():
    plain, masked = (
        scores(FirstToken(padded=p), 3, 0.1).set_index("estimator").variance for p in (False, True)
    )
    assert masked["scored-rows"] != plain["scored-rows"]
    assert masked["optimal-rows"] == pytest.approx(plain["optimal-rows"], rel=0.5)


def test_a_language_model_has_every_layer_and_the_same_seed_the_same_rows():
    task = replace(StdlibLM(), width=16, depth=1, heads=2, batch_size=4, length=8)
    rows = scores(task, steps=2, rate=0.5, batches=2)
    assert len(rows) == 4 * 7 and (rows.gap_stderr >= 0).all()
    assert rows.equals(scores(task, steps=2, rate=0.5, batches=2))
    assert not rows.equals(scores(task, steps=2, rate=0.5, batches=2, seed=1))


def test_summary_is_of_the_batches():
    values = {
        "uniform-rows": (9, 9),
        "norm-rows": (10, 8),
        "scored-rows": (4, 6),
        "optimal-rows": (2, 4),
    }
    lines = [("a", n, 0.1, 5, b, v, 2.0) for n, pair in values.items() for b, v in enumerate(pair)]
    columns = ["layer", "estimator", "rate", "step", "batch", "variance", "minibatch_example"]
    rows = pd.DataFrame(lines, columns=columns)
    rows = rows.assign(oracle=rows["estimator"] == "optimal-rows", biased=False, takes_rate=True)
    rows = summary(rows).set_index("estimator")
    assert rows.oracle.to_dict() == {name: name == "optimal-rows" for name in values}
    assert rows.ratio["scored-rows"] == 2.5
    assert rows.gap_closed["scored-rows"] == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert rows.gap_stderr["scored-rows"] == pytest.approx(0.125)


@pytest.mark.parametrize(("steps", "batches"), [(0, 8), (5, 1)])
def test_bad_counts(steps, batches):
    with pytest.raises(ValueError, match=f"got {steps}, {batches}"):
        scores(FirstToken(), steps, 0.1, batches)
