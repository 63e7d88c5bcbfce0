"""Every estimator and option of the probe on two processes, which tell what one process tells of
the same batch; and ranks that disagree.
"""

from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.multiprocessing as multiprocessing
from support.rank_scenarios import SCENARIOS, STUDY, work

from sketchvar.analysis.study import run


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Scenario -> what went wrong, of each of two ranks."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(work, (folder,), nprocs=2)
    return Path(folder), [torch.load(f"{folder}/{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ranks(told, scenario):
    assert [rank[scenario] for rank in told[1]] == ["", ""]


def test_a_study_of_two_processes_has_the_rows_of_one(told, tmp_path):
    found, expected = (
        {file.name: pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))}
        for folder in (told[0] / "study", run(STUDY, tmp_path / "alone"))
    )
    assert list(found) == list(expected) and len(found) == 4
    for name, rows in expected.items():
        errors = [column for column in rows if column.endswith("_stderr")]  # of differences
        for columns, digits in ((errors, 1e-4), (rows.columns.difference(errors), 1e-5)):
            same = {"rtol": digits, "obj": name}
            pd.testing.assert_frame_equal(found[name][columns], rows[columns], **same)
