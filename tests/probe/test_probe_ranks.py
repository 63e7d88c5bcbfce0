"""Every estimator and option of the probe on two processes, which tell what one process tells of
the same batch; and ranks that disagree.
"""

import itertools
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.multiprocessing as multiprocessing
from support.rank_scenarios import SCENARIOS, STUDY, work

from sketchvar.analysis.noise.closed import over_draws
from sketchvar.analysis.study import run


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Scenario -> what went wrong, of each of two ranks."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(work, (folder,), nprocs=2)
    return Path(folder), [torch.load(f"{folder}/{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ranks(told, scenario):
    said = [rank[scenario] for rank in told[1]]
    assert said == ["", ""], "\n".join(said)


def test_a_study_of_two_processes_has_the_rows_of_one(told, tmp_path):
    found, expected = (
        {file.name: pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))}
        for folder in (told[0] / "study", run(STUDY, tmp_path / "alone"))
    )
    assert list(found) == list(expected) and len(found) == 5
    for name, rows in expected.items():
        errors = [column for column in rows if column.endswith("_stderr")]  # of differences
        for columns, digits in ((errors, 1e-4), (rows.columns.difference(errors), 1e-5)):
            same = {"rtol": digits, "obj": name}
            pd.testing.assert_frame_equal(found[name][columns], rows[columns], **same)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (1, 1, 2)])
def test_what_ranks_differ_by_is_the_variance_of_their_mean(sizes):
    """Over all batches that ranks can draw, of one size or of several."""
    gradients = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ways = [list(itertools.product(gradients, repeat=size)) for size in sizes]
    found, means = [], []
    for batches in itertools.product(*ways):
        parts = torch.stack([torch.stack(batch).mean(0) / len(sizes) for batch in batches])
        means.append(parts.sum(0))
        squares, C = parts.square().sum(), means[-1].square().sum()
        found.append(over_draws(squares, C, len(sizes)))
    truth = torch.stack(means).var(0, correction=0).sum()
    assert abs(torch.stack(found).mean() / truth - 1) < 1e-12
