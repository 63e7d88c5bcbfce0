"""Sketches against their limits: bytes over the measured copy bandwidth, operations over the
measured GEMM rate.
"""

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from sketchvar.analysis import meter
from sketchvar.estimators import CountSketch, Gaussian, Rademacher, StochasticRounding, UniformRows
from sketchvar.estimators.kernels import (
    Buckets,
    counter,
    find_triton,
    hadamard_transform,
    next_power_of_two,
)
from sketchvar.estimators.kernels.rounding import round_and_pack
from sketchvar.estimators.sketch import RowSketch

COLUMNS = [
    "device",
    "dtype",
    "kernel",
    "rate",
    "n",
    "d",
    "seconds",
    "plain",
    "bytes",
    "operations",
    "limit",
]
COLUMNS += ["of_limit", "error"]
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
            median(w, repeats, device) for w in (partial(b.copy_, a), partial(torch.mm, a, b))
        )
        bandwidth, rate_of_gemm = 2 * a.nbytes / copy, 2 * side**3 / gemm
        found = {} if find_triton(where) is None else errors(dtype, where)
        name = str(dtype).removeprefix("torch.")
        rows += [
            (
                device,
                name,
                "copy",
                1.0,
                side,
                side,
                copy,
                copy,
                2 * a.nbytes,
                0,
                copy,
                1.0,
                float("nan"),
            )
        ]
        rows += [
            (
                device,
                name,
                "gemm",
                1.0,
                side,
                side,
                gemm,
                gemm,
                0,
                2 * side**3,
                gemm,
                1.0,
                float("nan"),
            )
        ]
        x = torch.randn(n, d, device=where, dtype=dtype)
        for work, plain in zip(works(x, rates), under(partial(works, x, rates)), strict=True):
            both: tuple[list[float], list[float]] = ([], [])
            for _ in range(repeats + 1):
                both[0].append(meter.kernel_seconds(work.run, device))
                both[1].append(under(partial(meter.kernel_seconds, plain.run, device)))
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


def works(x: Tensor, rates: Sequence[float]) -> list[Work]:
    """What is timed: products with a sketch already drawn, its draw, the transform, and rounding
    there and back.
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


def errors(
    dtype: torch.dtype, device: torch.device, n: int = 1000, d: int = 256
) -> dict[str, float]:
    """Kernel -> its largest error against the plain path in float64, over the largest entry of
    that.
    """
    fast, x = find_triton(device), torch.randn(n, d, device=device, dtype=dtype)
    assert fast is not None
    wide, k, seed = x.double(), n // 10, 2**40 + 1
    s = Buckets(*fast.partition(n, k, seed, device))
    same = torch.equal(s.order.long(), counter.permutation(n, seed, device))
    same = same and torch.equal(s.signs, counter.row_signs(n, seed, device))
    sums = under(lambda: CountSketch(0.1).apply(s, wide))
    found = {
        "draw of countsketch": 0.0 if same else 1.0,
        "countsketch": apart(fast.bucket_sums(*s, x), sums),
    }
    for name, entries in (("gaussian", counter.normals), ("rademacher", counter.sign_matrix)):
        made = entries(n, k, seed, device).double()
        found[name] = apart(fast.product(entries, k, seed, x), made.T @ wide * k**-0.5)
    found["hadamard"] = apart(
        fast.hadamard(x, next_power_of_two(n)), under(lambda: hadamard_transform(wide))
    )
    e = StochasticRounding(4)
    kept, u = e.compress(x, seed), counter.uniforms(n, d, 4, seed, device)
    packed, low, step = kept.tensors
    plain = round_and_pack(x, low, step, 4, lambda f: u.view_as(f) < f)
    found["rounding"] = float((packed != plain).double().mean())
    found["restoring"] = apart(
        e.restore(kept, dtype), under(lambda: e.restore(kept, dtype)).double()
    )
    return found


def apart(result: Tensor, exact: Tensor) -> float:
    return float((result.double() - exact).abs().max() / exact.abs().max())


def under(work: Callable[[], Any]) -> Any:
    """``work`` with the kernels switched off."""
    with switched_off():
        return work()


@contextmanager
def switched_off() -> Iterator[None]:
    before = os.environ.get("SKETCHVAR_KERNELS")
    os.environ["SKETCHVAR_KERNELS"] = "off"
    try:
        yield
    finally:
        del os.environ["SKETCHVAR_KERNELS"]
        if before is not None:
            os.environ["SKETCHVAR_KERNELS"] = before


def median(work: Callable[[], object], repeats: int, device: str) -> float:
    """Median seconds after a warm-up."""
    times = [meter.kernel_seconds(work, device) for _ in range(repeats + 1)]
    return statistics.median(times[1:])
