"""How far kernels are from PyTorch's own operators in float64."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sketchvar.estimators import CountSketch, StochasticRounding
from sketchvar.estimators.kernels import (
    Buckets,
    counter,
    find_triton,
    hadamard_transform,
    next_power_of_two,
)
from sketchvar.estimators.kernels.rounding import round_and_pack


def measure_errors(
    dtype: torch.dtype, device: torch.device, n: int = 1000, d: int = 256
) -> dict[str, float]:
    """Kernel -> its largest error against the plain path in float64, over the largest entry of
    that.
    """
    fast, x = find_triton(device), torch.randn(n, d, device=device, dtype=dtype)
    assert fast is not None
    wide, k = x.double(), n // 10
    seed = 2**40 + 1  # of which 32 bits are not the whole
    s = Buckets(*fast.partition(n, k, seed, device))
    same = torch.equal(s.order.long(), counter.permutation(n, seed, device))
    same = same and torch.equal(s.signs, counter.row_signs(n, seed, device))
    sums = run_plain(lambda: CountSketch(0.1).apply(s, wide))
    found = {
        "draw of countsketch": 0.0 if same else 1.0,
        "countsketch": relate(fast.bucket_sums(*s, x), sums),
    }
    for name, entries in (("gaussian", counter.normals), ("rademacher", counter.sign_matrix)):
        made = entries(n, k, seed, device).double()
        found[name] = relate(fast.product(entries, k, seed, x), made.T @ wide * k**-0.5)
    found["hadamard"] = relate(
        fast.hadamard(x, next_power_of_two(n)), run_plain(lambda: hadamard_transform(wide))
    )
    e = StochasticRounding(4)
    kept, u = e.compress(x, seed), counter.uniforms(n, d, seed, device)
    packed, low, step = kept.tensors
    plain = round_and_pack(x, low, step, 4, lambda f: u.view_as(f) < f)
    found["rounding"] = float((packed != plain).double().mean())
    found["restoring"] = relate(
        e.restore(kept, dtype), run_plain(lambda: e.restore(kept, dtype)).double()
    )
    return found


def relate(result: Tensor, exact: Tensor) -> float:
    """The largest difference over the largest entry of what is exact."""
    return float((result.double() - exact).abs().max() / exact.abs().max())


def run_plain(work: Callable[[], Any]) -> Any:
    """Run ``work`` with the kernels switched off; returns what it does."""
    with without_kernels():
        return work()


@contextmanager
def without_kernels() -> Iterator[None]:
    """Within, no kernel runs, whatever the environment asks for."""
    before = os.environ.get("SKETCHVAR_KERNELS")
    os.environ["SKETCHVAR_KERNELS"] = "off"
    try:
        yield
    finally:
        del os.environ["SKETCHVAR_KERNELS"]
        if before is not None:
            os.environ["SKETCHVAR_KERNELS"] = before
