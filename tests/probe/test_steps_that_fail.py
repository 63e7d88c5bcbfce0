"""A step has a beginning and an end, whatever raises in between and however often it evaluates."""

import pytest
import torch
from support.truth import measured, variances
from torch import nn

from sketchvar.analysis.probe import Probe

S = 8
TABLE = {"estimators": ["uniform-rows"], "rates": [0.5]}


class Fuse(torch.autograd.Function):
    blown = False

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        if Fuse.blown:
            raise RuntimeError("CUDA out of memory.")
        return g


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)
        self.fails = False

    def forward(self, x):
        h = Fuse.apply(torch.tanh(self.a(x)))
        if self.fails:
            raise RuntimeError("CUDA out of memory.")
        return self.b(h)


def truth(x, weights=None):
    model = Net()
    model.load_state_dict(weights or model.state_dict())
    found = variances(model, lambda s: model(x[s : s + 1]).square().mean() / S, S)
    return {"a": found["a.weight"], "b": found["b.weight"]}


def copied(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("clears", [True, False])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_a_failed_pass_left_is_dropped(where, clears):
    model, batches = Net(), torch.randn(3, S, 6)
    with Probe(model, **TABLE) as probe:
        for i, x in enumerate(batches):
            model.fails, Fuse.blown = i == 1 and where == "forward", i == 1 and where == "backward"
            try:
                model(x).square().mean().backward()
            except RuntimeError:
                if clears:
                    model.zero_grad()
                continue
            finally:
                Fuse.blown = model.fails = False
            probe.step()
            model.zero_grad()
    rows = probe.rows()
    assert set(rows["rows"]) == {S} and list(rows["step"].unique()) == [0, 1]
    assert measured(rows[rows["step"] == 1]) == pytest.approx(truth(batches[2]), rel=2e-5)
    both = torch.cat([batches[1], batches[2]])  # the control: what a leak would be
    assert measured(rows[rows["step"] == 1]) != pytest.approx(truth(both), rel=1e-2)


def test_a_step_whose_pass_failed_says_so():
    model = Net()
    with Probe(model, **TABLE) as probe, pytest.warns(UserWarning, match="an error ended"):
        Fuse.blown = True
        with pytest.raises(RuntimeError, match="out of memory"):
            model(torch.randn(S, 6)).square().mean().backward()
        Fuse.blown = False
        probe.step()
    assert probe.rows().empty


def test_a_step_in_which_nothing_ran_has_no_rows_of_the_one_before():
    model = Net()
    with Probe(model, **TABLE) as probe, pytest.warns(UserWarning, match="read 0 of 2 layers"):
        model(torch.randn(S, 6)).square().mean().backward()
        probe.step()
        probe.step()
    assert set(probe.rows()["step"]) == {0}


def test_lbfgs_is_measured_at_its_last_evaluation():
    model, x, weights = Net(), torch.randn(S, 6), []
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        weights.append(copied(model))
        return loss

    with (
        Probe(model, **TABLE) as probe,
        pytest.warns(UserWarning, match="LBFGS or SAM evaluate the loss several times"),
    ):
        optimizer.step(closure)
        probe.step()
    assert len(weights) > 2
    assert measured(probe.rows()) == pytest.approx(truth(x, weights[-1]), rel=1e-3)
    assert measured(probe.rows()) != pytest.approx(truth(x, weights[0]), rel=1e-2)


def test_sam_is_measured_where_its_gradient_is_taken():
    model, x = Net(), torch.randn(S, 6)
    with Probe(model, **TABLE) as probe, pytest.warns(UserWarning, match="SAM"):
        model(x).square().mean().backward()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(p.grad, alpha=0.5)
        model.zero_grad()
        model(x).square().mean().backward()
        moved = copied(model)
        probe.step()
    assert measured(probe.rows()) == pytest.approx(truth(x, moved), rel=2e-5)


def test_a_step_after_every_micro_batch_is_pointed_out():
    model = Net()
    with (
        Probe(model, **TABLE) as probe,
        pytest.warns(UserWarning, match="once per optimizer step"),
    ):
        for _ in range(2):
            model(torch.randn(S, 6)).square().mean().backward()
            probe.step()


@pytest.mark.parametrize("to_none", [True, False])
def test_usual_loops_are_not(to_none, recwarn):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Probe(model, **TABLE) as probe:
        for _ in range(3):
            optimizer.zero_grad(set_to_none=to_none)
            for _ in range(2):
                model(torch.randn(S, 6)).square().mean().backward()
            optimizer.step()
            probe.step()
    assert not [w for w in recwarn if "probe" in str(w.message) or "gradients" in str(w.message)]


def test_outside_its_block_a_probe_says_that_it_measures_nothing():
    probe = Probe(Net(), **TABLE)
    with pytest.warns(UserWarning, match="use it in a with block"):
        probe.step()
    assert not probe.attached


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_parameters_that_are_frozen_freed_and_replaced():
    model, x = Net(), torch.randn(S, 6)
    model.a.requires_grad_(False)
    saved = copied(model)
    steps = []
    with Probe(model, **TABLE) as probe:
        for i in range(5):
            if i == 1:
                model.load_state_dict(saved, assign=True)
            if i == 2:
                model.a.requires_grad_(True)
            if i == 3:
                model.b = nn.Linear(5, 3)
            if i == 4:
                model.b.weight = nn.Parameter(torch.randn(3, 5))
            model(x).square().mean().backward()
            model.zero_grad()
            probe.step()
            steps.append(set(probe.rows().query(f"step == {i}")["layer"]))
    # a module that comes in the middle of a step is seen from the next one on
    assert steps[2:] == [{"a", "b"}, {"a"}, {"a", "b"}]
    assert all("b" in layers for layers in steps[:3])


def test_a_lazy_model_has_a_table_before_the_first_batch():
    model, x = nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.Linear(5, 3)), torch.randn(S, 6)
    probe = Probe(model, **TABLE)
    assert probe.coverage()["share"][0] == 0
    with probe:
        model(x).square().mean().backward()
        probe.step()
    true = variances(model, lambda s: model(x[s : s + 1]).square().mean() / S, S)
    assert measured(probe.rows())["0"] == pytest.approx(true["0.weight"], rel=2e-5)


def test_a_table_that_cannot_be_written_stops_no_training(tmp_path):
    model = Net()
    with (
        Probe(model, out=tmp_path / "rows", **TABLE) as probe,
        pytest.warns(UserWarning, match="the probe could not read a step"),
    ):
        (tmp_path / "rows").rmdir()
        for _ in range(2):
            model(torch.randn(S, 6)).square().mean().backward()
            probe.step()
            model.zero_grad()
    assert probe.number == 2
