"""Runs tests/support/interpreted.py under Triton's interpreter, and compiles every kernel for a
GPU.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install 'sketchvar[triton]'")
HERE = Path(__file__).parents[1] / "support"


def passes(words, **environment):
    known = os.environ | {"JAXTYPING_DISABLE": "1"} | environment
    done = subprocess.run(
        [sys.executable, *words], cwd=HERE.parents[1], env=known, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_kernels_in_the_interpreter():
    passes(["-m", "pytest", str(HERE / "interpreted.py"), "--durations=3"], TRITON_INTERPRET="1")


@pytest.mark.slow
def test_kernels_compile_for_a_gpu(tmp_path):
    """No GPU is needed for that; what they do there is another matter."""
    passes(
        ["-m", "tests.support.compiled_kernels"],
        TRITON_CACHE_DIR=str(tmp_path),
        TRITON_INTERPRET="0",
    )


def test_kernels_are_not_used_on_a_cpu_nor_unless_switched_on(monkeypatch):
    import torch

    from sketchvar.estimators.kernels import find_triton

    monkeypatch.delenv("SKETCHVAR_KERNELS", raising=False)
    assert find_triton(torch.device("cuda")) is None
    monkeypatch.setenv("SKETCHVAR_KERNELS", "on")
    assert find_triton(torch.device("cpu")) is None
    assert find_triton(torch.device("cuda")) is not None
    assert find_triton(torch.device("cuda"), torch.float64) is None
