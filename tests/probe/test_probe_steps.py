"""The probe around a training loop: which steps, what comes out, and what it says of bad input."""

import gc
import warnings

import pandas as pd
import pytest
import torch
from torch import nn

from sketchvar.analysis import records
from sketchvar.analysis.noise.table import COLUMNS
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.probe.observer import OBSERVED

TABLE = {"estimators": ["uniform-rows", "countsketch"], "rates": [0.5, 0.25]}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def train(model, steps, batch=8, after=lambda step: None, **options):
    """``steps`` plain steps on batches that are a function of the step; returns the probe."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, **options) as probe:
        for step in range(options.get("first", 0), steps):
            x = torch.randn(batch, 4, generator=torch.Generator().manual_seed(step))
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            probe.step()
            after(step)
    return probe


def untouched(model):
    return not any(
        "forward" in vars(m) or m._forward_pre_hooks or m in OBSERVED for m in model.modules()
    )


def test_rows_of_every_third_step_are_those_of_measuring_every_step():
    model = network()
    idle = []
    some = train(model, 7, every=3, after=lambda step: idle.append(untouched(model)), **TABLE)
    assert idle == [True, True, False, True, True, False, True]  # attached for steps 0, 3, 6 only
    assert untouched(model)
    every = train(network(), 7, **TABLE).rows()
    assert some.measured == 3 and list(some.rows().columns) == COLUMNS
    expected = every[every["step"] % 3 == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(some.rows(), expected)
    assert len(expected) == 3 * 2 * 4
    assert expected["ratio"].gt(0).all()


def test_training_that_goes_on_measures_the_steps_it_would_have():
    probe = train(network(), 9, every=4, first=3, **TABLE)
    assert list(probe.rows()["step"].unique()) == [4, 8]


def test_a_measured_step_trains_as_any_other():
    probed, plain = network(), network()
    assert train(probed, 4, first=1).measured == 3
    assert train(plain, 4, first=1, every=100).measured == 0
    for a, b in zip(probed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_rows_as_parquet_survive_a_crash(tmp_path):
    out = tmp_path / "new" / "rows"

    def crash(step):
        if step == 4:
            raise RuntimeError("power")

    model = network()
    with pytest.raises(RuntimeError, match="power"):
        train(model, 7, every=2, out=out, after=crash, run="a", **TABLE)
    assert untouched(model)
    assert sorted(path.name for path in out.iterdir()) == [
        "_noise",
        *(f"step-{step:08d}.parquet" for step in (0, 2, 4)),
    ]  # which readers of the folder pass over
    table = pd.read_parquet(out)
    again = train(network(), 5, every=2, run="a", **TABLE).rows()
    pd.testing.assert_frame_equal(table, again)
    assert set(table["run"]) == {"a"}


def test_scalars_for_tensorboard():
    written = {}

    class Writer:
        def add_scalar(self, tag, value, step):
            written[tag, step] = value

    rows = train(network(), 2, writer=Writer(), **TABLE).rows()
    one = rows.query("layer == '2' and step == 1 and estimator == 'countsketch' and rate == 0.25")
    assert written["ratio/countsketch/0.25/2", 1] == one["ratio"].item()
    assert written["minibatch_variance/2", 1] == one["minibatch_example"].item()
    assert written["grad_sq/2", 1] == one["grad_sq"].item()
    assert len(written) == 2 * 2 * (4 + 2)


def test_tensorboard_takes_them(tmp_path):
    tensorboard = pytest.importorskip(
        "torch.utils.tensorboard", reason="tensorboard is not installed"
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        rows = train(network(), 2, writer=writer, **TABLE).rows()
    events = EventAccumulator(str(tmp_path)).Reload()
    values = [event.value for event in events.Scalars("minibatch_variance/0")]
    assert values == pytest.approx(
        list(rows.query("layer == '0'").drop_duplicates("step")["minibatch_example"])
    )


def test_a_batch_of_one_has_no_variance_and_says_so():
    with pytest.warns(UserWarning, match="one example has no minibatch variance"):
        rows = train(network(), 1, batch=1, **TABLE).rows()
    assert rows[["minibatch_example", "minibatch_row", "ratio"]].isna().all(axis=None)
    assert rows["variance"].notna().all() and rows["grad_sq"].gt(0).all()


def test_gradients_that_are_not_finite_are_counted_skipped_and_reported():
    model = network()

    def spoil(step):
        with torch.no_grad():
            model[2].weight.fill_(torch.inf if step in (1, 2) else 0.1)
            model[0].weight.fill_(0.1)
            model[0].bias.fill_(0.0), model[2].bias.fill_(0.0)

    with pytest.warns(
        UserWarning, match="the probe read . of 2 layers; .: its gradient is not finite"
    ):
        probe = train(model, 5, after=spoil, **TABLE)
    assert set(probe.rows()["step"]) == {
        0,
        1,
        4,
    }  # the layer before is still measured where it can be
    assert torch.tensor(probe.rows()[["variance", "ratio", "grad_sq"]].to_numpy()).isfinite().all()
    assert list(probe.coverage()["not_finite"]) == [2, 2, 2, 2]
    assert probe.coverage()["measured"].all()  # in the last step


def test_a_loss_that_does_not_reach_a_layer():
    model = network()
    model.append(nn.Linear(2, 2))
    with (
        pytest.warns(UserWarning, match=r"the probe read 2 of 3 layers; 3: no gradient reached it"),
        Probe(model) as p,
    ):
        model[:3](torch.randn(5, 4)).sum().backward()
        p.step()
    assert set(p.coverage().query("not measured")["parameter"]) == {"3.weight", "3.bias"}


def test_layers_that_count_examples_differently_are_named():
    class Flattens(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.rows = nn.Linear(4, 4), nn.Linear(4, 4), 14

        def forward(self, x):
            return self.b(self.a(x).flatten(0, 1)[: self.rows])

    model, x = Flattens(), torch.randn(3, 5, 4)
    with Probe(model) as probe:
        model(x).square().sum().backward()
    with pytest.warns(
        UserWarning, match=r"different numbers of examples: 3 in a, 14 in b; say with examples="
    ):
        probe.read()
    model.rows = 15  # all of them: one example after another
    for examples in (0, torch.arange(3)[:, None].expand(3, 5)):
        with Probe(model, examples=examples) as probe:
            model(x).square().sum().backward()
        assert [layer.examples for layer in probe.read().values()] == [3, 3]


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (2, r"examples=2 is no dimension"),
        ("first", r"examples= gave str, not a tensor of integers; give the dimension"),
        (torch.zeros(8), r"examples= gave torch.float32, not a tensor of integers"),
    ],
)
def test_examples_that_are_none(examples, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        Probe(model, examples=examples)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (
            torch.zeros(7, dtype=int),
            r"examples= has shape \(7,\), but its rows have \(8,\): which row is of which",
        ),
        (
            torch.ones(7, 3, dtype=bool),
            r"examples= has shape \(7, 3\), but its rows have \(8,\)",
        ),
        (lambda x: x, r"examples= could not be read: ValueError: examples= gave torch.float32"),
        (lambda: 0, r"examples= could not be read: TypeError"),
    ],
)
def test_examples_that_do_not_match_stop_no_training(examples, message):
    model, plain = network(), network()
    with pytest.warns(UserWarning, match=message):
        probe = train(model, 2, examples=examples, **TABLE)
    train(plain, 2, every=100)
    assert all(map(torch.equal, model.parameters(), plain.parameters()))
    assert len(probe.rows()) == 0 and untouched(model)
    assert probe.coverage()["reason"].str.contains(message).all()


def test_examples_of_a_model_that_is_never_called():
    model = network()
    with (
        pytest.warns(UserWarning, match="only parts of the model were called"),
        Probe(model, examples=lambda x: 0) as probe,
    ):
        model[0](torch.randn(2, 4)).sum().backward()
        assert probe.read() == {}


def test_two_probes_on_one_model():
    model = network()
    with (
        Probe(model) as first,
        pytest.raises(ValueError, match="already attached to this Sequential"),
    ):
        train(model, 1)
    with Probe(model[2]), pytest.raises(ValueError, match="already attached"):
        train(model, 1)
    first.close()
    assert untouched(model)
    train(model, 1)


def test_a_probe_left_attached_is_detached_when_it_goes():
    model = network()
    probe = Probe(model).__enter__()
    assert not untouched(model)
    with pytest.warns(UserWarning, match="left attached"):
        del probe
        gc.collect()
    assert untouched(model)


def test_steps_that_are_not_told_apart():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.warns(UserWarning, match=r"were cleared .* call probe\.step\(\) after each"),
        pytest.warns(UserWarning, match=r"there are no rows: call probe\.step\(\)"),
        Probe(model, **TABLE) as probe,
    ):
        for _ in range(2):
            model(torch.randn(8, 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert {layer.moments.n for layer in probe.read().values()} == {8}  # the last pass counts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimators": ["magic"], "rates": [0.5]}, "magic"),
        ({"estimators": ["gaussian"], "rates": [1.5]}, "rate=1.5|rate 1.5"),
        ({"estimators": ["gaussian"]}, "'gaussian' needs rate; write gaussian:0.1"),
        ({"rates": [0.5]}, "rates= needs estimators="),
        ({"every": 0}, "every must be 1 or more, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Probe(network(), **options)


def test_out_that_is_a_file(tmp_path):
    file = tmp_path / "rows.parquet"
    records.write_rows(file, pd.DataFrame({"a": [1]}))
    with pytest.raises(
        ValueError, match=r"out= is a folder of Parquet files, and .*rows.parquet is a file"
    ):
        Probe(network(), out=file)


def test_data_parallel_is_refused():
    with pytest.raises(ValueError, match="DistributedDataParallel under torchrun"):
        Probe(nn.DataParallel(network()))


def test_nothing_is_said_of_a_step_that_is_in_order():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(network(), 3, **TABLE)
