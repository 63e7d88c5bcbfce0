"""What a probe sends to a logger, which layers it measures, and at which steps."""

import warnings
from itertools import pairwise

import pandas as pd
import pytest
import torch
from torch import nn

from sketchvar.analysis.noise import noise_scale
from sketchvar.analysis.noise.scale import TOTAL
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.probe.schedule import Budget

TABLE = {"estimators": ["uniform-rows", "centered(countsketch)"], "rates": [0.5]}
CHOICES = {"uniform-rows": "uniform-rows/0.5", "centered(countsketch)": "centered_countsketch/0.5"}


def train(steps=6, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    target = torch.randn(3)
    with Probe(model, **options) as probe:
        for step in range(steps):
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
            (model(x) - target).square().mean().backward()
            model.zero_grad()
            probe.step()
    return probe


def test_a_log_gets_a_dozen_numbers_of_every_measured_step():
    told = {}
    asked = TABLE | {"every": 2, "exact_errors": True, "parameters": False}
    rows = train(log=lambda n, step: told.update({step: n}), **asked).rows()
    assert list(told) == [0, 2, 4]
    for step, numbers in told.items():
        here = rows[rows["step"] == step]
        once = here.drop_duplicates("layer")
        expected = {
            "measured_layers": 3,
            "grad_sq/total": once["grad_sq"].sum(),
            "minibatch_variance/total": once["minibatch_example"].sum(),
        }
        for estimator, name in CHOICES.items():
            ratio = here[here["estimator"] == estimator].set_index("layer")["ratio"]
            drawn = once.set_index("layer")["minibatch_example"]
            expected[f"ratio/{name}/total"] = (ratio * drawn).sum() / drawn.sum()
            expected[f"ratio/{name}/median"] = sorted(ratio)[1]
            expected[f"ratio/{name}/worst"] = max(ratio)
        scale = noise_scale(rows[rows["step"] <= step])
        last = scale[(scale["layer"] == TOTAL) & (scale["step"] == step)].iloc[0]
        expected["noise_scale"] = last["noise_scale"]
        expected["noise_scale_stderr"] = last["noise_scale_stderr"]
        found = {name.removeprefix("sketchvar/"): n for name, n in numbers.items()}
        assert found == pytest.approx(expected) and len(found) <= 12
        assert all(type(n) is float for n in found.values())


def test_the_noise_scale_that_is_sent_is_that_of_all_parameters():
    told = {}
    probe = train(log=lambda n, step: told.update(n), **TABLE)
    scale, stderr = probe.scale.value()
    assert told["sketchvar/noise_scale"] == scale and scale > 0
    assert told["sketchvar/noise_scale_stderr"] == stderr and stderr > 0


def test_layers_are_sent_on_request_and_without_estimators_the_noise_scale():
    told = {}
    probe = train(1, log=lambda n, step: told.update(n), log_layers=["0", "[4]"], **TABLE)
    rows = probe.rows().set_index(["layer", "estimator"])
    for layer in ("0", "4"):
        one = rows.loc[layer, "centered(countsketch)"]
        place = f"sketchvar/layers/{layer}"
        assert told[f"{place}/ratio/{CHOICES['centered(countsketch)']}"] == one["ratio"]
        assert told[f"{place}/grad_sq"] == one["grad_sq"]
        assert told[f"{place}/minibatch_variance"] == one["minibatch_example"]
    assert not any("layers/2/" in name for name in told)
    plain = {}
    assert train(1, log=lambda n, step: plain.update(n)).rows().empty
    assert plain == {name: n for name, n in told.items() if name in plain}
    assert {"sketchvar/noise_scale", "sketchvar/grad_sq/total"} <= set(plain)


def test_a_log_that_raises_is_told_of_once_and_the_table_goes_on():
    calls = []

    def send(numbers, step):
        calls.append(step)
        raise OSError(f"no network\nat step {step}")

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        rows = train(3, log=send, **TABLE).rows()
    assert calls == [0, 1, 2] and set(rows["step"]) == {0, 1, 2}
    said = [str(w.message) for w in seen if "log= raised" in str(w.message)]
    assert len(said) == 1 and said[0].endswith("OSError: no network at step 0")
    pd.testing.assert_frame_equal(rows, train(3, **TABLE).rows())


def test_only_the_layers_that_are_named_are_measured():
    whole = train(2, **TABLE).rows()
    for layers, names in (("0", ["0"]), (["[24]"], ["2", "4"]), (["4", "0"], ["0", "4"])):
        probe = train(2, layers=layers, **TABLE)
        expected = whole[whole["layer"].isin(names)].reset_index(drop=True)
        pd.testing.assert_frame_equal(probe.rows(), expected)
        coverage = probe.coverage()
        measured = coverage[coverage["parameter"].str.endswith("weight")]["measured"]
        assert list(measured) == [str(i) in names for i in (0, 2, 4)]
        left = coverage[~coverage["measured"]]["reason"]
        assert set(left) == {"left out: layers= does not name it"}


def test_periods_are_dense_early_and_sparse_later():
    assert set(train(12, every={0: 1, 3: 4, 9: 100}, **TABLE).rows()["step"]) == {0, 1, 2, 4, 8}
    assert set(train(9, every={5: 3}, **TABLE).rows()["step"]) == {6}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"layers": "9"}, ValueError, "layers= names '9', which matches no layer; known are 0, 2"),
        ({"layers": []}, ValueError, "layers= is empty"),
        ({"log": "wandb"}, TypeError, "log= is a function .* as wandb.log .* got 'wandb'"),
        ({"log_layers": "0"}, ValueError, "log_layers= needs log="),
        ({"log": print, "log_layers": "9"}, ValueError, "log_layers= names '9'"),
        ({"every": {}}, TypeError, r"every= is a number of steps, .* got \{\}"),
        ({"every": {0: 1.5}}, TypeError, "every= is a number of steps"),
        ({"every": {0: 1, 5: 0}}, ValueError, r"every must be 1 or more, got \{5: 0\}"),
        ({"overhead": 0.1, "every": 2}, ValueError, "overhead= chooses every itself"),
        ({"overhead": 1.5}, ValueError, "overhead is a fraction .* got 1.5"),
    ],
)
def test_bad_options_are_refused_at_once(options, error, says):
    with pytest.raises(error, match=says):
        Probe(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)), **options)


class Run:
    """A training on a clock of its own: a plain step takes 1, a measured one ``more`` besides."""

    def __init__(self, more, overhead=0.01, first=0):
        self.now, self.step, self.more, self.measured = 0.0, first, more, []
        self.budget = Budget(overhead, first, lambda: self.now)

    def train(self, steps, slow=1.0):
        for step in range(self.step, self.step + steps):
            self.now += slow
            if self.budget.is_due(step):
                self.now += self.more * slow
                self.measured.append(step)
            self.budget.end(step)
        self.step += steps
        return self.measured


@pytest.mark.parametrize(
    ("more", "overhead", "period"),
    [(1.0, 0.01, 100), (0.25, 0.01, 25), (0.3, 0.02, 15), (0.0, 0.01, 2), (0.001, 0.5, 2)],
)
def test_a_budget_settles_at_the_period_that_it_allows(more, overhead, period):
    run = Run(more, overhead, first=7)
    steps = run.train(2000)
    assert steps[:2] == [7, 12]  # two to begin with, plain steps between
    assert steps[-1] - steps[-2] == period
    gaps = [b - a for a, b in pairwise(steps[1:])]
    assert all(b <= max(4 * a, 12) for a, b in pairwise(gaps))
    spent = more * len(steps) / (run.now - more * len(steps))
    assert spent <= overhead + 4 * more / 2000  # the first few are dearer


def test_a_budget_follows_what_measuring_costs_and_believes_no_single_step():
    run = Run(0.125, overhead=1 / 64)
    run.train(400)
    assert run.budget.period == 8
    run.more = 0.5  # as where sequences grow
    run.train(1000)
    assert run.budget.period == 32
    run.now += 1000  # a checkpoint is written
    run.train(200)
    assert run.budget.period == 32


def test_a_warm_up_is_not_taken_for_the_time_of_a_plain_step():
    run = Run(0.5)
    run.train(1)
    run.train(2, slow=500.0)  # a compiler
    run.train(1000)
    assert run.budget.period == 50


def test_a_budget_chooses_the_steps_of_a_probe():
    steps = sorted(set(train(40, overhead=0.5, **TABLE).rows()["step"]))
    assert steps[:2] == [0, 5] and min(b - a for a, b in pairwise(steps)) >= 2
