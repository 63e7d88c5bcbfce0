"""What the probe costs: paired ratios of time and of peak memory to the plain training step, in one
process.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import pandas as pd
import torch

from sketchvar.analysis import meter
from sketchvar.analysis.loop import start
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.tasks import Batch, Task
from sketchvar.analysis.tasks.digits_mlp import DigitsMLP
from sketchvar.analysis.tasks.stdlib_lm import StdlibLM

COLUMNS = ["device", "model", "level", "every", "time", "low", "high", "memory", "repeats"]
CPU = torch.device("cpu")
MODELS: dict[str, Task] = {
    "transformer, sequence 64, width 192": StdlibLM(),
    "transformer, sequence 256, width 256": replace(
        StdlibLM(), width=256, heads=8, length=256, batch_size=8
    ),
    "multilayer perceptron, width 1024": replace(DigitsMLP(), width=1024, batch_size=512),
}
KINDS = [(level, every) for every in (1, 10) for level in ("row", "example")]
ROUND = 10  # steps: of them a probe of every kind measures at least one


def time_probes(repeats: int, progress: meter.Progress | None = None) -> Iterator[pd.DataFrame]:
    """The table as it grows, a row per model, level and ``every``: a training step with the probe
    on the CPU, over the plain one.

    ``time`` is the median of paired ratios over ``repeats`` rounds of ten steps, ``low`` and
    ``high`` their quartiles, ``memory`` the ratio of peaks. One thread: with more, the CPU time of
    threads that wait for work hides what is measured. ``progress`` is called after every round.
    """
    threads, lines = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for done, (name, task) in enumerate(MODELS.items()):
            for line in compare_kinds(task, repeats, done * repeats, progress):
                lines.append(("cpu", name, *line, repeats))
                yield pd.DataFrame(lines, columns=COLUMNS)
    finally:
        torch.set_num_threads(threads)


def compare_kinds(
    task: Task, repeats: int, done: int, progress: meter.Progress | None
) -> Iterator[tuple[str, int, float, float, float, float]]:
    """Level, every, time, low, high and memory of every kind of probe on one task; one step of each
    in turn.
    """
    plain = start(task, 1, CPU, seed=0)
    batch = plain.batch(0)
    with ExitStack() as probes:
        steps: list[Callable[[], object]] = [partial(plain.advance, 0, batch)]
        steps += [attach(task, batch, level, every, probes) for level, every in KINDS]
        for step in steps:
            for _ in range(ROUND):  # makes the optimizer's state, and ends a round
                step()
        meter.peak(steps[0], CPU)  # the profiler's first look misses what was held before it
        resident = meter.resident(plain.model, plain.optimizer)
        plain_peak = resident + meter.peak(steps[0], CPU)
        times: list[list[float]] = []
        for i in range(repeats):
            times += [[meter.seconds(step, CPU) for step in steps] for _ in range(ROUND)]
            if progress is not None:
                progress(done + i + 1, len(MODELS) * repeats)
        for i, (level, every) in enumerate(KINDS, start=1):
            parts = [times[j : j + every] for j in range(0, len(times), every)]
            ratios = [sum(row[i] for row in part) / sum(row[0] for row in part) for part in parts]
            low, middle, high = statistics.quantiles(ratios, n=4)
            memory = (resident + meter.peak(steps[i], CPU)) / plain_peak
            yield level, every, middle, low, high, memory


def attach(
    task: Task, batch: Batch, level: str, every: int, probes: ExitStack
) -> Callable[[], None]:
    """A training step of a model of its own with a probe on it, as a user would write it."""
    training = start(task, 1, CPU, seed=0)
    probe = Probe(
        training.model, level == "example", estimators=["uniform-rows"], rates=[0.1], every=every
    )
    probes.enter_context(probe)

    def step() -> None:
        training.advance(0, batch)
        probe.step()

    return step
