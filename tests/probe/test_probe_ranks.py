"""Under torchrun the probe tells what it tells in one process; tests/support/ranks.py is what runs
there.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_ranks_are_one_process(kind, tmp_path):
    script = Path(__file__).parents[1] / "support" / "ranks.py"
    root = str(script.parents[2])
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "JAXTYPING_DISABLE": "1",
        "PYTHONPATH": root,
    }
    environment["PYTHONFAULTHANDLER"] = "1"  # a crash says where
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
        kind,
    ]
    done = subprocess.run(
        [*words, str(tmp_path)], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
