"""What the probe costs: paired ratios of time and of peak memory to the plain training step, in one
process.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from sketchvar.analysis.probe import Probe
from sketchvar.analysis.tasks import Batch, Task
from sketchvar.analysis.tasks.digits_mlp import DigitsMLP
from sketchvar.analysis.tasks.stdlib_lm import StdlibLM


class Cost(NamedTuple):
    """Medians of paired ratios to the plain step, with the quartiles of the time."""

    model: str
    level: str
    every: int
    time: float
    low: float
    high: float
    memory: float


MODELS: dict[str, Task] = {
    "transformer, sequence 64, width 192": StdlibLM(),
    "transformer, sequence 256, width 256": replace(
        StdlibLM(), width=256, heads=8, length=256, batch_size=8
    ),
    "multilayer perceptron, width 1024": replace(DigitsMLP(), width=1024, batch_size=512),
}
KINDS = [(level, every) for every in (1, 10) for level in ("row", "example")]


def probe(repeats: int) -> list[Cost]:
    """Time and peak memory of a full training step with the probe, by row and by example, on three
    models.

    One thread: with more, the CPU time of threads that wait for work hides what is measured.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [cost for name, task in MODELS.items() for cost in probe_one(name, task, repeats)]
    finally:
        torch.set_num_threads(threads)


class Loop:
    """A training loop of its own, with a probe or none: what a user would write."""

    def __init__(self, task: Task, batch: Batch, level: str = "", every: int = 1) -> None:
        torch.manual_seed(0)
        self.task, self.batch, self.model = task, batch, task.model()
        self.optimizer = task.optimizer(self.model)
        self.probe = None
        if level:
            self.probe = Probe(
                self.model,
                level == "example",
                estimators=["uniform-rows"],
                rates=[0.1],
                every=every,
            ).__enter__()

    def step(self) -> None:
        self.task.loss(self.model, self.batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(
            set_to_none=True
        )  # last, so that every step begins with the same memory
        if self.probe is not None:
            self.probe.step()

    def close(self) -> None:
        if self.probe is not None:
            self.probe.close()


def probe_one(name: str, task: Task, repeats: int) -> list[Cost]:
    """The costs on one task: ``repeats`` times ten steps of each loop, one of each in turn."""
    batch = task.batch(0, seed=0)
    plain, loops = Loop(task, batch), {kind: Loop(task, batch, *kind) for kind in KINDS}
    everyone = [plain, *loops.values()]
    for loop in everyone:
        for _ in range(
            10
        ):  # makes the optimizer's state, and comes back to a step that is measured
            loop.step()
    peak(plain.step)  # the profiler's first look misses what was held before it
    held = resident(plain.model, plain.optimizer)
    bytes_plain = held + peak(plain.step)
    times: list[list[float]] = [
        [seconds(loop.step) for loop in everyone] for _ in range(10 * repeats)
    ]
    costs = []
    for i, ((level, every), loop) in enumerate(loops.items(), start=1):
        sums = [
            [sum(row[k] for row in times[j : j + every]) for k in (i, 0)]
            for j in range(0, len(times), every)
        ]
        low, middle, high = statistics.quantiles(
            [probed / of_plain for probed, of_plain in sums], n=4
        )
        memory = (held + peak(loop.step)) / bytes_plain
        costs.append(Cost(name, level, every, middle, low, high, memory))
        loop.close()
    return costs


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this process, all threads: what other processes take of the machine does not
    count.
    """
    start = time.process_time()
    work()
    return time.process_time() - start


def resident(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of parameters and optimizer state, which live through every step."""
    state = (t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor))
    return sum(t.nbytes for t in [*model.parameters(), *state])


def peak(work: Callable[[], object]) -> int:
    """Greatest number of bytes that torch's CPU allocator held at once for ``work``, above what it
    held before.
    """
    return max(0, *accumulate(changes(work)))


def held(work: Callable[[], object]) -> int:
    """Bytes that torch's CPU allocator holds more after ``work`` than before, while its result
    lives.
    """
    return sum(changes(work))


def changes(work: Callable[[], object]) -> list[int]:
    """Bytes allocated (positive) and freed (negative) by torch's CPU allocator during ``work``, in
    order of time.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it narrates on stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = work()
    del result  # not before the profile ends: what it holds is held
    assert record.profiler is not None and record.profiler.kineto_results is not None
    events = (
        record.profiler.kineto_results.events()
    )  # record.events() hides what happens inside an operator
    return [
        size
        for _, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    ]
