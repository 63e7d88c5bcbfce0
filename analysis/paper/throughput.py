"""Throughput of training steps by rate: examples per second, and the paired ratio to the plain
step.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median_high

import pandas as pd
import torch

from sketchvar.analysis import meter
from sketchvar.analysis.loop import start
from sketchvar.analysis.tasks import Task
from sketchvar.estimators import Estimator, choices, sketch_linears
from sketchvar.estimators.choice import Flags

COLUMNS = ["task", "device", "threads", "batch", "estimator", "rate"]
COLUMNS += ["ratio", "low", "high", "plain", "repeats", *Flags._fields]


def measure_throughput(
    name: str,
    task: Task,
    estimators: Sequence[str],
    rates: Sequence[float],
    device: str,
    repeats: int,
) -> Iterator[pd.DataFrame]:
    """The table as it grows, a row per estimator and rate: ``ratio`` is the median over ``repeats``
    of the throughput of a whole training step over the plain step's beside it, ``low`` and ``high``
    the quartiles, ``plain`` the plain step's examples per second (median). Time is the process's
    CPU time, or on a GPU wall time.
    """
    plain = prepare_step(task, None, device)
    plain()
    times = [meter.seconds(plain, device) for _ in range(repeats)]
    per_second = task.batch_size / median_high(times)
    about, lines = (name, device, torch.get_num_threads(), task.batch_size), []
    for choice in choices(estimators, rates):
        sketched = prepare_step(task, choice.told(), device)
        middle, low, high = meter.paired(plain, sketched, device, repeats)
        ratios = (1 / middle, 1 / high, 1 / low)
        what = (*about, choice.name, choice.rate)
        lines.append((*what, *ratios, per_second, repeats, *choice.flags))
        yield pd.DataFrame(lines, columns=COLUMNS)


def prepare_step(task: Task, estimator: Estimator | None, device: str) -> Callable[[], object]:
    """Prepare one update on the task's first batch, with its linear layers under ``estimator``, or
    plain.
    """
    training = start(task, 1, torch.device(device), seed=0)
    if estimator is not None:
        sketch_linears(training.model, estimator)
    return partial(training.advance, 0, training.batch(0))
