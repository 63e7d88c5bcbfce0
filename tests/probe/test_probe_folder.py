"""A probe's folder is of one run, says what it is of, and keeps its rows out of memory."""

import tracemalloc

import pandas as pd
import pytest
import torch
from torch import nn

from sketchvar.analysis import records
from sketchvar.analysis.probe import Probe

TABLE = {"estimators": ["uniform-rows", "countsketch"], "rates": [0.5, 0.25]}


def train(steps, out, width=5, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3))
    with Probe(model, out=out, **TABLE | options) as probe:
        for step in range(options.get("first", 0), steps):
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
            model(x).square().mean().backward()
            model.zero_grad()
            probe.step()
    return probe


def test_a_used_folder_is_refused_and_gone_on_with_on_request(tmp_path):
    out = tmp_path / "mine"
    train(4, out)
    with pytest.raises(ValueError, match=r"out=.*mine is not empty.*resume=True"):
        train(2, out, width=7)
    with pytest.raises(ValueError, match=r"holds a run with choices="):
        train(6, out, resume=True, first=2, rates=[0.5])
    went_on = train(6, out, resume=True, first=2).rows()
    whole = train(6, tmp_path / "other", run="mine").rows()
    pd.testing.assert_frame_equal(went_on, whole)
    pd.testing.assert_frame_equal(pd.read_parquet(out), whole)
    assert set(whole["run"]) == {"mine"}


def test_a_file_says_what_it_is_of(tmp_path):
    train(2, tmp_path / "mine")
    about = records.read_about(tmp_path / "mine" / "step-00000001.parquet")
    assert (about["run"], about["model"], about["dtype"]) == ("mine", "Sequential", "float32")
    assert about["coverage"]["parameter"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert about["coverage"]["measured"] == [True] * 4
    assert {"commit", "device", "torch", "date"} <= set(about)


def test_rows_in_files_are_not_in_memory(tmp_path):
    kept = []
    for out in (None, tmp_path / "mine"):
        torch.manual_seed(0)
        model, x = nn.Sequential(*(nn.Linear(4, 4) for _ in range(8))), torch.randn(4, 4)
        with Probe(
            model, out=out, estimators=["uniform-rows"] * 1, rates=[i / 50 for i in range(1, 50)]
        ) as probe:
            for step in range(12):
                if step == 2:
                    tracemalloc.start()
                model(x).sum().backward()
                model.zero_grad()
                probe.step()
        kept.append(tracemalloc.get_traced_memory()[0] / len(probe.rows()))
        tracemalloc.stop()
    assert kept[1] < 0.2 * kept[0]  # bytes a row
