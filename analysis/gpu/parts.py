"""The parts of the GPU suite: each a generator of its table as it grows, from the project's own
studies and benches.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pandas as pd
import torch

from sketchvar.analysis import meter, records
from sketchvar.analysis.bench import kernels as bench_kernels
from sketchvar.analysis.bench import memory as bench_memory
from sketchvar.analysis.gpu.layers import measure_layers, profile_layers
from sketchvar.analysis.gpu.run import Run
from sketchvar.analysis.loop import start
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.study import study
from sketchvar.analysis.sweep.run import Sweep, attempt
from sketchvar.analysis.tasks import find_task
from sketchvar.analysis.truth import redraws


def measure_variance(run: Run) -> Iterator[pd.DataFrame]:
    """Every estimator's variance and the minibatch's, by row and by example, in all layers through
    a real training.
    """
    s, folder = run.scale, run.out / "variance"
    what = study.Study(
        s.task, s.steps, s.measure_at, s.estimators, s.rates, run.device, options=s.options
    )
    try:
        study.run(what, folder, (folder / "run.json").exists(), run.check)
        # as large as model and optimizer, and not a result
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    finally:
        if (folder / "rows.parquet").exists():
            yield records.read_rows(folder / "rows.parquet")


def redraw_minibatches(run: Run) -> Iterator[pd.DataFrame]:
    """The minibatch variance by redrawing minibatches, after as many updates as the study has,
    beside closed forms.
    """
    s, folder = run.scale, run.out / "redraw"
    what = redraws.Redraws(
        s.task, s.steps, s.draws, "countsketch:0.1", run.device, options=s.options
    )
    try:
        redraws.run(what, folder, (folder / "run.json").exists(), run.check)
    finally:
        if (folder / "truth.parquet").exists():
            yield records.read_rows(folder / "truth.parquet")


def measure_memory(run: Run) -> Iterator[pd.DataFrame]:
    """The paper's memory table and throughput: peak of RoBERTa-base training at its batch sizes,
    seconds of a step.
    """
    s, done = run.scale, pd.DataFrame()
    for task, batch, length in s.batches:
        tables = bench_memory.measure_memory(
            s.memory_estimators,
            s.memory_rates,
            s.encoder_layers,
            (batch,),
            length,
            run.device,
            s.repeats,
        )
        rows = done
        for table in run.fits(f"{task}, {batch} × {length}", tables):
            rows = pd.concat([done, table.assign(task=task)], ignore_index=True)
            yield rows
        done = rows


def measure_probe(run: Run) -> Iterator[pd.DataFrame]:
    """Time and peak memory of the study's training step with the probe on it, by row and by
    example, over the plain.
    """
    s, lines = run.scale, []
    training = start(find_task(s.task, s.options), 1, torch.device(run.device), seed=0)
    plain = partial(training.advance, 0, training.batch(0))

    def probed(by_example: bool) -> None:
        with Probe(training.model, by_example) as measured:
            plain()
        measured.read()

    plain()  # makes the optimizer's state
    resident = meter.resident(training.model, training.optimizer)
    for level in ("row", "example"):
        work = partial(probed, level == "example")
        ratio, low, high = meter.paired(plain, work, run.device, s.repeats)
        peaks = [resident + meter.peak(step, run.device) for step in (work, plain)]
        lines.append((run.device, s.task, level, ratio, low, high, peaks[0] / peaks[1], s.repeats))
        yield pd.DataFrame(
            lines, columns=["device", "task", "level", "time", "low", "high", "memory", "repeats"]
        )


def measure_kernels(run: Run) -> Iterator[pd.DataFrame]:
    """Each kernel, and PyTorch's own operators for the same, against what copy bandwidth and GEMM
    rate allow.
    """
    s = run.scale
    tables = bench_kernels.time_kernels(
        *s.matrix, s.memory_rates, s.dtypes, s.side, s.repeats, run.device
    )
    yield from run.fits("kernels", tables)


def fine_tune(run: Run) -> Iterator[pd.DataFrame]:
    """Fine-tuning with the estimators of the training study and exactly: loss, metric, time and
    peak, step by step.
    """
    folder, cells = Sweep(run.out / "finetune"), []
    for grid in run.scale.grids:
        # what is missing is an error of the part, not of every cell
        find_task(grid.task, grid.options).check()
        exact = replace(grid.exact(grid.seeds[0]), device=run.device)
        cells += [
            exact,
            *(replace(exact, estimator=c.name, rate=c.rate) for c in grid.choices()),
        ]
    folder.open()
    for cell in cells:
        if not folder.rows_of(cell).exists():
            folder.keep(cell, attempt(cell))
        yield folder.table(cells)
    run.skipped += [f"{name}: {error}" for name, error in folder.errors(cells).items()]


# most valuable first, with each one's share of the time; the kernels, which are quick, before the
# layers that use them
PARTS: dict[str, tuple[float, Callable[[Run], Iterator[pd.DataFrame]]]] = {
    "variance": (5, measure_variance),
    "kernels": (2, measure_kernels),
    "layers": (8, measure_layers),
    "probe": (1, measure_probe),
    "profile": (1, profile_layers),
    "memory": (5, measure_memory),
    "redraw": (4, redraw_minibatches),
    "finetune": (10, fine_tune),
}
