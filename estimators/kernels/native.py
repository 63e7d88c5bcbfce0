"""C++ for a CPU, compiled at its first use where there is a compiler: how it is built, found and
called. What runs is in ``rounding.cpp`` and ``floating.cpp``; ``compiled`` hands it tensors.

The library is kept in the user's cache (XDG_CACHE_HOME, else ~/.cache) by what it was made of.
SKETCHVAR_NATIVE=off leaves all to PyTorch.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.kernels import counter
from sketchvar.estimators.kernels.counter import ROUNDING

SOURCES = [Path(__file__).with_name(name) for name in ("rounding.cpp", "floating.cpp", "rows.h")]
# no contraction: a fused multiply-add rounds once where PyTorch rounds twice
FLAGS = ["-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-shared", "-fPIC"]
LEAST_ROWS = 512  # for a thread
WORD = 2**64 - 1


@cache
def load() -> ctypes.CDLL | None:
    """The compiled library; None where there is no compiler, or, with a warning, where it fails."""
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("g++", "c++"))), None)
    if compiler is None:
        return None
    try:
        return ctypes.CDLL(str(build(compiler)))
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        warnings.warn(
            f"{compiler} could not make {SOURCES[0].name} into a library ({said}); rounding runs by"
            " PyTorch's operators, at half the speed. SKETCHVAR_NATIVE=off silences this",
            stacklevel=2,
        )
        return None


def is_on() -> bool:
    """Whether C++ runs on a CPU."""
    return os.environ.get("SKETCHVAR_NATIVE") != "off" and load() is not None


def build(compiler: str) -> Path:
    """The library in the user's cache, made if it is not there. Raises OSError or
    CalledProcessError where that fails.
    """
    found = Path(shutil.which(compiler) or compiler).resolve(strict=True)
    made_by = (found, found.stat().st_mtime_ns, *FLAGS, platform.platform(), processor())
    read = b"".join(path.read_bytes() for path in SOURCES)
    key = hashlib.sha256(read + repr(made_by).encode()).hexdigest()[:16]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    library = Path(home, "sketchvar", f"rounding-{key}.so")
    if not library.exists():
        library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            made = Path(scratch, library.name)
            sources = [str(path) for path in SOURCES if path.suffix == ".cpp"]
            words = [compiler, *FLAGS, *sources, "-o", str(made)]
            subprocess.run(words, check=True, capture_output=True, text=True)
            os.replace(made, library)  # whole or not at all, whoever else builds it now
    return library


def processor() -> str:
    """What the processor can do: a cache may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def by_rows(n: int, run: Callable[[int, int], None]) -> None:
    """Call ``run`` with ranges of n rows, in as many threads as PyTorch has; C++ runs without the
    lock.
    """
    threads = max(min(torch.get_num_threads(), n // LEAST_ROWS), 1)
    edges = [n * i // threads for i in range(threads + 1)]
    if threads == 1:
        run(0, n)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, edges[:-1], edges[1:]))


def call(name: str, *given: Tensor | int | None) -> None:
    """Call a function of the library; a tensor goes as its address."""
    library = load()
    assert library is not None
    sent = [
        ctypes.c_uint64((g.data_ptr() if isinstance(g, Tensor) else g or 0) & WORD) for g in given
    ]
    getattr(library, name)(*sent)


def uniforms(
    n: int, p: int, seed: int, device: torch.device, first: int = 0
) -> Float[Tensor, "n p"]:
    """``counter.uniforms``, by C++ where that runs: for the paths that are otherwise PyTorch's."""
    if device.type != "cpu" or not is_on():
        return counter.uniforms(n, p, seed, device, first)
    words = torch.empty(n, 4 * -(-p // 8), dtype=torch.int32)
    call("draw_rows", first, n, -(-p // 8), seed, ROUNDING, words)
    return counter.to_unit(words.view(torch.uint16)[:, :p])
