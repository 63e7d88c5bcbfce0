"""Every estimator and option of the probe on two processes, which tell what one process tells of
the same batch; and ranks that disagree.
"""

import pytest
import torch
import torch.multiprocessing as multiprocessing
from support.rank_scenarios import SCENARIOS, work


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Scenario -> what went wrong, of each of two ranks."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(work, (folder,), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ranks(told, scenario):
    assert [rank.get(scenario, "not run") for rank in told] == ["", ""]
