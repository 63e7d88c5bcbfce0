"""Flags of estimators as columns: tables have them, and files of before get them where they are
read.
"""

from pathlib import Path

import pandas as pd
import pytest
import torch

from sketchvar.analysis import records
from sketchvar.analysis.folder import rows_of
from sketchvar.analysis.frontier.rows import of_run
from sketchvar.analysis.noise.select import at_rate, choose_rate, list_rates
from sketchvar.analysis.noise.table import LATER
from sketchvar.analysis.plan.candidates import list_candidates
from sketchvar.analysis.plan.measured import measure_layers
from sketchvar.estimators import choices

DATA = Path(__file__).parents[2] / "data"
FLAGS = ["oracle", "biased", "takes_rate"]
OLD = Path(__file__).parents[1] / "support" / "before" / "rows.parquet"  # of 2026-11-24


@pytest.mark.parametrize(
    "file",
    [
        OLD,
        DATA / "train" / "cifar10-vit" / "rows.parquet",
        DATA / "train" / "cifar10-vit" / "summary.parquet",
    ],
)
def test_files_of_before_get_flags_where_they_are_read(file):
    before, rows = pd.read_parquet(file), records.read_rows(file)
    assert not set(FLAGS) <= set(before)
    pd.testing.assert_frame_equal(rows[list(before)], before)
    for name, part in rows.groupby("estimator"):
        (choice,) = choices(str(name), 0.5)
        assert (part[FLAGS] == list(choice.flags)).all().all()
    assert set(map(str, rows[FLAGS].dtypes)) == {"bool"}


def test_layers_of_before_get_columns_of_which_they_know_nothing(tmp_path):
    rows = records.read_rows(OLD)
    assert set(LATER) <= set(rows) and (rows["batches"] == 1).all()
    assert rows[[name for name in LATER if name != "batches"]].isna().all().all()
    pd.read_parquet(OLD).assign(x_bytes=64).to_parquet(tmp_path / "a.parquet")
    assert records.read_rows(tmp_path / "a.parquet")["share"].equals(rows["kept_bytes"] / 64)


def test_learned_scores_are_no_oracle():
    rows = records.read_rows(DATA / "scores" / "glue-cola-minilm" / "scores.parquet")
    flags = rows.drop_duplicates("estimator").set_index("estimator")["oracle"].to_dict()
    assert flags.pop("optimal-rows") and "scored-rows" in flags and not any(flags.values())


def test_names_that_are_no_estimators_have_no_flags(tmp_path):
    rows = pd.DataFrame({"estimator": ["plain", "checkpointing", "top-rows"]})
    rows.to_parquet(tmp_path / "a.parquet")
    assert records.read_rows(tmp_path / "a.parquet")[FLAGS].to_numpy().tolist() == [
        [False, False, False],
        [False, False, False],
        [False, True, True],
    ]
    for other in (pd.DataFrame({"layer": ["a"]}), rows.assign(oracle=1, biased=2, takes_rate=3)):
        other.to_parquet(tmp_path / "b.parquet")
        pd.testing.assert_frame_equal(records.read_rows(tmp_path / "b.parquet"), other)


def test_a_run_of_before_still_plans_and_draws():
    rows = rows_of(OLD.parent)
    table = list_candidates(measure_layers(rows, torch.float32))
    assert "countsketch" in set(table["estimator"]) and "optimal-rows" not in set(
        table["estimator"]
    )
    assert set(rows["rate"]) - {1.0} == set(list_rates(rows)) and choose_rate(rows) == 0.1
    shown = at_rate(rows.assign(takes_rate=rows["estimator"] != "srht"), 0.1)
    assert set(shown[shown["rate"] != 0.1]["estimator"]) == {"srht"}
    frontier = of_run(rows, torch.float32)
    assert frontier["oracle"].sum() == (rows["estimator"] == "optimal-rows").sum() > 0


def test_rows_without_flags_say_how_to_get_them():
    rows = pd.read_parquet(OLD)
    for use in (lambda: at_rate(rows, 0.1), lambda: measure_layers(rows, torch.float32)):
        with pytest.raises(ValueError, match=r"older files; read the file by .*read_rows"):
            use()
