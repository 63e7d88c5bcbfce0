"""Sketches against their limits: bytes over the measured copy bandwidth, operations over the
measured GEMM rate.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from sketchvar.analysis import meter
from sketchvar.analysis.bench.kernel_errors import measure_errors, run_plain
from sketchvar.estimators import CountSketch, Gaussian, Rademacher, StochasticRounding, UniformRows
from sketchvar.estimators.kernels import find_triton, hadamard_transform, next_power_of_two
from sketchvar.estimators.sketch import RowSketch

COLUMNS = ["device", "dtype", "kernel", "rate", "n", "d", "seconds", "plain", "bytes"]
COLUMNS += ["operations", "limit", "of_limit", "error"]
SKETCHES: dict[str, Callable[[float], RowSketch[Any]]] = {
    "countsketch": CountSketch,
    "uniform-rows": UniformRows,
    "gaussian": Gaussian,
    "rademacher": Rademacher,
}


class Work(NamedTuple):
    """Something to time, with the bytes that it has to move and the operations that it has to
    do.
    """

    name: str
    rate: float
    run: Callable[[], object]
    bytes: int
    operations: int = 0


def time_kernels(
    n: int,
    d: int,
    rates: Sequence[float],
    dtypes: Sequence[torch.dtype],
    side: int,
    repeats: int,
    device: str,
) -> Iterator[pd.DataFrame]:
    """The table as it grows, a row per dtype and kernel on an n × d matrix.

    ``seconds`` is the median of the estimator's own path (on a GPU with triton: the kernel),
    ``plain`` that of PyTorch's operators alone, in turn with it. ``limit`` is the longer of
    ``bytes`` / copy bandwidth and ``operations`` / GEMM rate, measured in the rows called copy and
    gemm on side × side matrices, and ``of_limit`` = limit / seconds.
    ``error`` is the kernel's largest relative error against float64 on a small case, 0 where it has
    to be 0 and is;
    NaN where no kernel ran.
    """
    where, rows = torch.device(device), []
    for dtype in dtypes:
        a, b = (torch.randn(side, side, device=where, dtype=dtype) for _ in range(2))
        copy, gemm = (
            time_median(w, repeats, device) for w in (partial(b.copy_, a), partial(torch.mm, a, b))
        )
        bandwidth, rate_of_gemm = 2 * a.nbytes / copy, 2 * side**3 / gemm
        found = {} if find_triton(where) is None else measure_errors(dtype, where)
        name = str(dtype).removeprefix("torch.")
        for kernel, took, size, count in (
            ("copy", copy, 2 * a.nbytes, 0),
            ("gemm", gemm, 0, 2 * side**3),
        ):
            line = (took, took, size, count, took, 1.0, float("nan"))
            rows.append((device, name, kernel, 1.0, side, side, *line))
        x = torch.randn(n, d, device=where, dtype=dtype)
        fast_works, plain_works = list_works(x, rates), run_plain(partial(list_works, x, rates))
        for work, plain in zip(fast_works, plain_works, strict=True):
            both: tuple[list[float], list[float]] = ([], [])
            for _ in range(repeats + 1):
                both[0].append(meter.kernel_seconds(work.run, device))
                both[1].append(run_plain(partial(meter.kernel_seconds, plain.run, device)))
            fast, slow = (statistics.median(times[1:]) for times in both)  # the first is a warm-up
            limit = max(work.bytes / bandwidth, work.operations / rate_of_gemm)
            line = (
                fast,
                slow,
                work.bytes,
                work.operations,
                limit,
                limit / fast,
                found.get(work.name, float("nan")),
            )
            rows.append((device, name, work.name, work.rate, n, d, *line))
            yield pd.DataFrame(rows, columns=COLUMNS)


def list_works(x: Tensor, rates: Sequence[float]) -> list[Work]:
    """List what is timed: products with a sketch already drawn, its draw, the transform, and
    rounding there and back.
    """
    (n, d), each = x.shape, x.element_size()
    found = [
        Work(
            "draw of countsketch",
            rates[-1],
            partial(CountSketch(rates[-1]).draw, n, 1, x.device),
            12 * n,
        )
    ]
    for rate in rates:
        for name, kind in SKETCHES.items():
            sketch = kind(rate)
            k, drawn = sketch.k(n), sketch.draw(n, 1, x.device)
            read = k if name == "uniform-rows" else n
            dense = name in ("gaussian", "rademacher")
            found.append(
                Work(
                    name,
                    rate,
                    partial(sketch.apply, drawn, x),
                    (read + k) * d * each,
                    2 * n * k * d * dense,
                )
            )
    transform, rows = partial(hadamard_transform, x), n + next_power_of_two(n)
    found.append(Work("hadamard", 1.0, transform, rows * d * each))
    rounding = StochasticRounding(4)
    kept = rounding.compress(x, 1)
    found.append(Work("rounding", 1.0, partial(rounding.compress, x, 1), x.nbytes + kept.nbytes))
    found.append(
        Work("restoring", 1.0, partial(rounding.restore, kept, x.dtype), x.nbytes + kept.nbytes)
    )
    return found


def time_median(work: Callable[[], object], repeats: int, device: str) -> float:
    """Time work: the median of repeats after a warm-up, in seconds."""
    times = [meter.kernel_seconds(work, device) for _ in range(repeats + 1)]
    return statistics.median(times[1:])
