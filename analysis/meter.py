"""The one clock and the one memory meter, each the same for a CPU and a GPU."""

import gc
import math
import os
import time
from collections.abc import Callable
from itertools import accumulate

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

Work = Callable[[], object]
Progress = Callable[[int, int], object]  # is called with what is done, of how much
COLD = 2**28  # bytes that no cache holds, and that keep a GPU busy while work is launched


def seconds(work: Work, device: str | torch.device) -> float:
    """Time ``work``: CPU time of this process, all threads; on a GPU, wall time between
    synchronisations.

    CPU time leaves out what other processes take of the machine.
    """
    if not on_gpu(device):
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def kernel_seconds(work: Work, device: str | torch.device) -> float:
    """Time ``work`` as ``seconds``, but on a GPU between two events on its stream.

    The stream first clears a buffer, so that it is busy until all of ``work`` is launched, and no
    cache holds its data.
    """
    if not on_gpu(device):
        return seconds(work, device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    filler = torch.empty(COLD, dtype=torch.uint8, device=device)
    for _ in range(4):
        filler.zero_()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1e3


def paired(
    plain: Work, other: Work, device: str | torch.device, repeats: int
) -> tuple[float, float, float]:
    """Median and quartiles of time(other) / time(plain) over ``repeats`` pairs.

    The two of a pair run one after the other, in alternating order, after a warm-up of each. A pair
    in which the clock did not tick tells nothing and is left out; NaN where none is left.
    """
    seconds(plain, device), seconds(other, device)
    ratios = []
    for i in range(repeats):
        first, second = (plain, other) if i % 2 else (other, plain)
        a, b = seconds(first, device), seconds(second, device)
        if min(a, b) > 0:
            ratios.append(b / a if i % 2 else a / b)
    if not ratios:
        return math.nan, math.nan, math.nan
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def peak(work: Work, device: str | torch.device) -> int:
    """Most bytes that torch's allocator holds at once in ``work``, above what it held before."""
    if not on_gpu(device):
        return max(0, *accumulate(changes(work)))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


def allocated(work: Work, device: str | torch.device) -> int:
    """All bytes that ``work`` asks torch's allocator for, one after the other."""
    if not on_gpu(device):
        return sum(size for size in changes(work) if size > 0)

    def asked() -> int:
        return torch.cuda.memory_stats(device).get("allocated_bytes.all.allocated", 0)

    before = asked()
    work()
    return asked() - before


def allocations(work: Work, device: str | torch.device) -> int:
    """How often ``work`` asks torch's allocator for memory."""
    if not on_gpu(device):
        return sum(size > 0 for size in changes(work))

    def asked() -> int:
        return torch.cuda.memory_stats(device).get("allocation.all.allocated", 0)

    before = asked()
    work()
    return asked() - before


def held(work: Work, device: str | torch.device) -> int:
    """Bytes that torch's allocator holds more after ``work``, while its result lives."""
    if not on_gpu(device):
        return sum(changes(work))
    before = torch.cuda.memory_allocated(device)
    result = work()
    after = torch.cuda.memory_allocated(device)
    del result
    return after - before


def resident(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of parameters and optimizer state, which live through every step."""
    state = (t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor))
    return sum(t.nbytes for t in [*model.parameters(), *state])


def changes(work: Work) -> list[int]:
    """Bytes allocated (positive) and freed (negative) by torch's CPU allocator during ``work``, in
    order of time.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it narrates on stderr
    collects = gc.isenabled()
    gc.disable()  # what it would free now, others have left
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            result = work()
    finally:
        if collects:
            gc.enable()
    del result  # not before the profile ends: what it holds is held
    assert record.profiler is not None and record.profiler.kineto_results is not None
    # not record.events(), which hides what happens inside an operator
    events = record.profiler.kineto_results.events()
    memory = ((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return [size for _, size in sorted(memory)]


def on_gpu(device: str | torch.device) -> bool:
    return torch.device(device).type == "cuda"
