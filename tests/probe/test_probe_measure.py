"""Batches measured beside a training: what they say, and that the training does not notice."""

import warnings

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis import noise
from sketchvar.analysis.probe import Probe

NAMES, RATES = ["gaussian", "norm-rows"], [0.25]


def model_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
    )


def batches(count, seed, size=12):
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 6, generator=g), torch.randint(3, (size,), generator=g))
        for _ in range(count)
    ]


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def train(measured):
    """Losses, weights and buffers of a training, and its rows."""
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses = []
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the batch norm
        with Probe(model, estimators=NAMES, rates=RATES, every=2) as probe:
            for step, batch in enumerate(batches(5, seed=1)):
                value = loss(model, batch)
                value.backward()
                if measured and step in (1, 2):
                    model[1].eval()
                    before = [p.grad for p in model.parameters()]
                    rows = probe.measure(loss, batches(3, seed=step + 10))
                    assert all(p.grad is g for p, g in zip(model.parameters(), before, strict=True))
                    assert not model[1].training and model[3].training
                    assert (rows["batches"] == 3).all() and set(rows["step"]) == {step}
                    model[1].train()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(value.item())
                probe.step()
    return losses, {k: t.clone() for k, t in model.state_dict().items()}, probe.rows()


def test_a_training_does_not_notice():
    (losses, state, rows), (others, same, plain) = train(True), train(False)
    assert losses == others
    assert all(t.equal(same[name]) for name, t in state.items())
    assert rows.drop_duplicates("step")["batches"].tolist() == [1, 3, 3, 1]
    assert rows.drop_duplicates("step")["step"].tolist() == [0, 1, 2, 4]
    alone = rows["batches"] == 1
    pd.testing.assert_frame_equal(
        rows[alone].reset_index(drop=True),
        plain[plain["step"] != 2].reset_index(drop=True),
    )


def test_numbers_are_those_of_the_batches():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    drawn = batches(3, seed=2)
    rows = Probe(model, estimators=NAMES, rates=RATES).measure(loss, drawn)
    each = []
    for batch in drawn:
        model.zero_grad()
        with Probe(model) as probe:
            loss(model, batch).backward()
        each.append(noise.compare(probe.read().values(), NAMES, RATES))
    for name in ("variance", "minibatch_example", "minibatch_row", "grad_sq"):
        mean = sum(one[name] for one in each) / 3
        pd.testing.assert_series_equal(rows[name], mean, rtol=1e-12)
    expected = rows["variance"] / rows["minibatch_example"]
    pd.testing.assert_series_equal(rows["ratio"], expected, check_names=False, rtol=1e-12)
    norm = rows["estimator"] == "norm-rows"
    assert rows.loc[norm, "ratio_stderr"].notna().all()  # over batches
    floor = sum(one["variance_stderr"] ** 2 for one in each) ** 0.5 / 3
    assert (rows["variance_stderr"] >= floor * 0.999999)[~norm].all()


def test_with_a_scaler_and_a_broken_loss():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    scaled = Probe(model, estimators=NAMES, rates=RATES, scaler=scaler)
    plain = Probe(model, estimators=NAMES, rates=RATES)
    drawn = batches(2, seed=3)
    pd.testing.assert_frame_equal(
        scaled.measure(loss, drawn), plain.measure(loss, drawn), rtol=1e-5
    )

    def broken(model, batch):
        raise KeyError("no such batch")

    probe = Probe(model, estimators=NAMES, rates=RATES)
    with pytest.raises(KeyError):
        probe.measure(broken, drawn)
    Probe(model, estimators=NAMES, rates=RATES).measure(loss, drawn)  # nothing is left attached


def test_what_it_refuses():
    model = nn.Linear(6, 3)
    with pytest.raises(ValueError, match="give estimators= and rates="):
        Probe(model).measure(loss, batches(1, 0))
    probe = Probe(model, estimators=NAMES, rates=RATES)
    with pytest.raises(ValueError, match="no batches"):
        probe.measure(loss, [])
    probe.measure(loss, batches(1, 0))
    with pytest.raises(ValueError, match="step 0 was measured already"):
        probe.measure(loss, batches(1, 0))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    hook = model.weight.register_post_accumulate_grad_hook(lambda p: optimizer.step())
    with pytest.raises(RuntimeError, match=r"weight changed while batches were measured"):
        Probe(model, estimators=NAMES, rates=RATES).measure(loss, batches(1, 0))
    hook.remove()
    few = Probe(model, estimators=NAMES, rates=RATES, population=8)
    with pytest.raises(ValueError, match="population=8 is less than a batch of 12 examples"):
        few.measure(loss, batches(1, 0))
    with pytest.raises(ValueError, match="population is the number of examples"):
        Probe(model, population=0)
