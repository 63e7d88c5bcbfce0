"""What the probe costs: paired ratios of time and of peak memory to the plain training step, in one process."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from analysis.probe import Probe
from analysis.tasks import Task
from analysis.tasks.digits_mlp import DigitsMLP
from analysis.tasks.stdlib_lm import StdlibLM


class Cost(NamedTuple):
    """Medians of paired ratios to the plain step, with the quartiles of the time."""

    model: str
    level: str
    time: float
    low: float
    high: float
    memory: float


MODELS: dict[str, Task] = {
    "transformer, sequence 64, width 192": StdlibLM(),
    "transformer, sequence 256, width 256": replace(StdlibLM(), width=256, heads=8, length=256, batch_size=8),
    "multilayer perceptron, width 1024": replace(DigitsMLP(), width=1024, batch_size=512),
}


def probe(repeats: int) -> list[Cost]:
    """Time and peak memory of a full training step with the probe, by row and by example, on three models.

    One thread: with more, the CPU time of threads that wait for work hides what is measured.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [cost for name, task in MODELS.items() for cost in probe_one(name, task, repeats)]
    finally:
        torch.set_num_threads(threads)


def probe_one(name: str, task: Task, repeats: int) -> list[Cost]:
    """The two costs, by row and by example, on one task."""
    torch.manual_seed(0)
    model = task.model()
    optimizer, batch = task.optimizer(model), task.batch(0, seed=0)

    def plain() -> None:
        task.loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # last, so that every step begins with the same memory

    def probed(by_example: bool) -> None:
        with Probe(model, by_example) as probe:
            plain()
        probe.read()

    work: dict[str, Callable[[], None]] = {
        "plain": plain,
        "row": partial(probed, False),
        "example": partial(probed, True),
    }
    plain()  # makes the optimizer's state
    peak(plain)  # the profiler's first look misses what was held before it
    held = resident(model, optimizer)
    times = {kind: [seconds(step)] for kind, step in work.items()}
    for _ in range(repeats - 1):
        for kind, step in work.items():
            times[kind].append(seconds(step))
    peaks = {kind: held + peak(step) for kind, step in work.items()}
    costs = []
    for level in ("row", "example"):
        ratios = [a / b for a, b in zip(times[level], times["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        costs.append(Cost(name, level, middle, low, high, peaks[level] / peaks["plain"]))
    return costs


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this process, all threads: what other processes take of the machine does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def resident(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of parameters and optimizer state, which live through every step."""
    state = (t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor))
    return sum(t.nbytes for t in [*model.parameters(), *state])


def peak(work: Callable[[], object]) -> int:
    """Greatest number of bytes that torch's CPU allocator held at once for ``work``, above what it held before."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it narrates on stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    assert record.profiler is not None and record.profiler.kineto_results is not None
    events = record.profiler.kineto_results.events()  # record.events() hides what happens inside an operator
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most
