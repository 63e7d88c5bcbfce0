"""The clock and the memory meter, against bytes and times that are known."""

import math
import time

import pytest
import torch
from torch import nn

from sketchvar.analysis import meter

X = torch.randn(256, 256)


def test_peak_sees_what_is_allocated_inside_operators():
    assert 2 * X.nbytes <= meter.peak(lambda: X @ X + 1, "cpu") < 2.01 * X.nbytes


def test_held_is_what_the_result_keeps():
    assert meter.held(lambda: X @ X + 1, "cpu") == X.nbytes
    assert meter.held(lambda: (X @ X + 1).sum().item(), "cpu") == 0


def test_resident_is_parameters_and_the_optimizer_s_state():
    model = nn.Linear(30, 20, bias=False)
    optimizer = torch.optim.Adam(model.parameters())
    assert meter.resident(model, optimizer) == 4 * 600
    model(torch.ones(2, 30)).sum().backward()
    optimizer.step()
    assert meter.resident(model, optimizer) == 3 * 4 * 600 + 4  # two moments, and its step


def test_a_cpu_s_time_is_the_process_s_own():
    assert meter.seconds(lambda: time.sleep(0.05), "cpu") < 0.04
    assert meter.kernel_seconds(lambda: time.sleep(0.05), "cpu") < 0.04

    def busy():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    assert meter.seconds(busy, "cpu") >= 0.05


def test_pairs_take_turns_and_their_ratios_are_of_the_two_of_a_pair(monkeypatch):
    """On a machine that slows down at every call, the one that is always second would look slow."""
    calls = []

    def slower(work, device):
        calls.append(work())
        return {"plain": 1.0, "other": 3.0}[calls[-1]] * 1.1 ** len(calls)

    monkeypatch.setattr(meter, "seconds", slower)
    middle, low, high = meter.paired(lambda: "plain", lambda: "other", "cpu", 8)
    assert calls[2:6] == ["other", "plain", "plain", "other"]
    assert low == pytest.approx(3 / 1.1) and high == pytest.approx(3 * 1.1)
    assert middle == pytest.approx((3 / 1.1 + 3 * 1.1) / 2)


def test_a_pair_without_a_tick_of_the_clock_is_left_out(monkeypatch):
    ticks = iter([1.0, 1.0, 2.0, 1.0, 0.0, 3.0, 1.0, 0.0, 1.0, 2.0])  # warm-up, then four pairs
    monkeypatch.setattr(meter, "seconds", lambda work, device: next(ticks))
    assert meter.paired(str, str, "cpu", 4) == (2.0, 2.0, 2.0)
    monkeypatch.setattr(meter, "seconds", lambda work, device: 0.0)
    assert all(math.isnan(each) for each in meter.paired(str, str, "cpu", 4))
