"""What a whole training step costs whose linear layers train with an estimator: paired time, and
memory, over the exact step, in one process.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd
import torch

from sketchvar.analysis import meter
from sketchvar.analysis.bench.memory import account_for
from sketchvar.analysis.loop import Training, forward, start
from sketchvar.analysis.tasks import Task
from sketchvar.estimators import choices, sketch_linears
from sketchvar.estimators.choice import Flags

COLUMNS = ["task", "device", "threads", "batch", "estimator", "rate", "ratio", "low", "high"]
COLUMNS += ["plain_peak", "peak", "plain_saved", "saved", "kept", "repeats", *Flags._fields]


def time_steps(
    name: str,
    task: Task,
    estimators: Sequence[str] = ("rounding:2",),
    rates: Sequence[float] = (0.5, 0.1),
    repeats: int = 15,
    device: str = "cpu",
    progress: meter.Progress | None = None,
) -> Iterator[pd.DataFrame]:
    """The table as it grows, a row per estimator and rate, of the step of the ``task`` called
    ``name``: forward, backward and update, always on its first batch.

    ``ratio`` is the median over ``repeats`` of paired ratios of time to the exact step, ``low`` and
    ``high`` their quartiles. ``peak`` is the most bytes that a step holds at once beside parameters
    and optimizer state; ``saved`` what autograd holds between forward and backward, ``kept`` the
    part of it that sketched layers keep; ``plain_peak`` and ``plain_saved`` are of the exact step.
    So ``plain_saved`` − ``saved`` is what the estimator spares, and ``plain_peak`` − ``peak`` what
    of that reaches the peak. ``progress`` is called after every row.
    """
    plain = begin(task, device)
    step = partial(plain.advance, 0, plain.batch(0))
    step()  # makes the optimizer's state
    before = (meter.peak(step, device), sum(hold(plain).values()))
    about, rows = (name, device, torch.get_num_threads(), task.batch_size), []
    compared = choices(estimators, rates)
    for choice in compared:
        sketched = begin(task, device)
        sketch_linears(sketched.model, choice.told())
        other = partial(sketched.advance, 0, sketched.batch(0))
        ratios = meter.paired(step, other, device, repeats)
        held = hold(sketched)
        after = (meter.peak(other, device), sum(held.values()))
        memory = (before[0], after[0], before[1], after[1], held.get("Product", 0))
        line = (*about, choice.name, choice.rate, *ratios, *memory, repeats)
        rows.append((*line, *choice.flags))
        if progress is not None:
            progress(len(rows), len(compared))
        yield pd.DataFrame(rows, columns=COLUMNS)


def begin(task: Task, device: str) -> Training:
    """The task's training, the same every time."""
    return start(task, 1, torch.device(device), seed=0)


def hold(training: Training) -> dict[str, int]:
    """Bytes that autograd holds between forward and backward, by operation."""
    batch = training.batch(0)
    return account_for(forward(training.task, training.model, batch, training.device))
