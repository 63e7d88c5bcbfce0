"""Runs tests/compiled.py in a process of its own, without the shape checks of conftest.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_compiled_layers():
    cases = Path(__file__).parents[1] / "support" / "compiled.py"
    environment = os.environ | {"JAXTYPING_DISABLE": "1"}
    words = [sys.executable, "-m", "pytest", str(cases), "--show-capture=no", "--durations=3"]
    done = subprocess.run(
        words, cwd=cases.parents[2], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
