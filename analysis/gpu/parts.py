"""The parts of the GPU suite: each a generator of its table as it grows, from the project's own
studies and benches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.profiler import ProfilerActivity

from sketchvar.analysis import meter, records
from sketchvar.analysis.bench import kernels as bench_kernels
from sketchvar.analysis.bench import layer as bench_layer
from sketchvar.analysis.bench import memory as bench_memory
from sketchvar.analysis.loop import start
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.study import study
from sketchvar.analysis.sweep.grid import Grid
from sketchvar.analysis.sweep.run import Sweep, finish
from sketchvar.analysis.tasks import Options, find_task
from sketchvar.analysis.tasks.glue_data import first_line
from sketchvar.analysis.truth import redraws
from sketchvar.estimators import SketchedLinear, parse


@dataclass(frozen=True)
class Scale:
    """How large everything is: ``FULL`` for a GPU, ``TINY`` for a test of the suite itself."""

    task: str
    options: Options
    steps: int
    measure_at: tuple[int, ...]
    draws: int
    estimators: tuple[str, ...]  # in the study
    rates: tuple[float, ...]
    layer_estimators: tuple[str, ...]
    shapes: tuple[tuple[int, int, int], ...]
    dtypes: tuple[torch.dtype, ...]
    repeats: int
    encoder_layers: int
    batches: tuple[tuple[str, int, int], ...]  # task, examples, tokens of an example
    memory_estimators: tuple[str, ...]
    memory_rates: tuple[float, ...]
    matrix: tuple[int, int]  # that the kernels read
    side: int  # of the matrices behind copy bandwidth and GEMM rate
    grids: tuple[Grid, ...]  # of fine-tuning, with one seed each: whole seeds come first


@dataclass
class Run:
    """Where a part writes, on which device, until when (``monotonic`` seconds), and what it had to
    leave out.
    """

    scale: Scale
    out: Path
    device: str
    until: float
    skipped: list[str] = field(default_factory=list)

    def check(self, *_: object) -> None:
        """Raise TimeoutError when the part's time is over; takes whatever a ``progress`` callback
        is shown.
        """
        if monotonic() > self.until:
            raise TimeoutError("out of time")

    def fits(self, what: str, tables: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """The tables, until one does not fit into memory or fails, which is noted: a GPU's time is
        worth the others.
        """
        try:
            yield from tables
        except Exception as error:  # of torch, triton, the compiler that triton calls
            self.skipped.append(f"{what}: {first_line(error)}")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def variance(run: Run) -> Iterator[pd.DataFrame]:
    """Every estimator's variance and the minibatch's, by row and by example, in all layers through
    a real training.
    """
    s, folder = run.scale, run.out / "variance"
    what = study.Study(
        s.task, s.steps, s.measure_at, s.estimators, s.rates, run.device, options=s.options
    )
    try:
        study.run(what, folder, (folder / "run.json").exists(), run.check)
        (folder / "checkpoint.pt").unlink(
            missing_ok=True
        )  # as large as model and optimizer: not a result
    finally:
        if (folder / "rows.parquet").exists():
            yield records.read_rows(folder / "rows.parquet")


def redraw(run: Run) -> Iterator[pd.DataFrame]:
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


def layers(run: Run) -> Iterator[pd.DataFrame]:
    """Time of a layer over nn.Linear's, and memory: bytes held between forward and backward, and
    the peak of both.
    """
    s, done = run.scale, pd.DataFrame()
    for dtype in s.dtypes:
        for shape in s.shapes:
            for name in s.layer_estimators:
                tables = bench_layer.time_layers(
                    (name,), s.rates, (shape,), s.repeats, run.device, dtype
                )
                rows = done
                for table in run.fits(f"{name}, {shape}, {dtype}", with_memory(tables, run.device)):
                    rows = pd.concat([done, table], ignore_index=True)
                    yield rows
                done = rows


def with_memory(tables: Iterator[pd.DataFrame], device: str) -> Iterator[pd.DataFrame]:
    """The rows of training layers, with two columns more: ``held`` and ``peak``, over
    nn.Linear's.
    """
    found: list[tuple[float, float]] = []
    for table in tables:
        rows = table[table["mode"] == "train"]
        if len(rows) > len(found):
            found.append(memory_ratios(rows.to_dict("records")[-1], device))
            held, peak = zip(*found, strict=True)
            yield rows.assign(held=held, peak=peak)


def memory_ratios(row: dict[Any, Any], device: str) -> tuple[float, float]:
    """Bytes that autograd holds between forward and backward, and the most held at once, over
    nn.Linear's.
    """
    where: dict[str, Any] = {"device": device, "dtype": getattr(torch, row["dtype"])}
    x = torch.randn(row["rows"], row["p"], requires_grad=True, **where)
    y = torch.randn(row["rows"], row["q"], **where)
    numbers = []
    for module in (
        SketchedLinear(row["p"], row["q"], parse(row["estimator"], row["rate"]), **where),
        nn.Linear(row["p"], row["q"], **where),
    ):
        held = sum(bench_memory.account_for(module(x)).values())
        if isinstance(module, nn.Linear) and not isinstance(module, SketchedLinear):
            held = x.nbytes  # a leaf that requires a gradient counts as a parameter there
        numbers.append((held, meter.peak(partial(bench_layer.step, module, x, y), device)))
    (held, peak), (plain_held, plain_peak) = numbers
    return held / plain_held, peak / plain_peak


def memory(run: Run) -> Iterator[pd.DataFrame]:
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


def probe(run: Run) -> Iterator[pd.DataFrame]:
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


def kernels(run: Run) -> Iterator[pd.DataFrame]:
    """Each kernel, and PyTorch's own operators for the same, against what copy bandwidth and GEMM
    rate allow.
    """
    s = run.scale
    tables = bench_kernels.time_kernels(
        *s.matrix, s.memory_rates, s.dtypes, s.side, s.repeats, run.device
    )
    yield from run.fits("kernels", tables)


def profile(run: Run) -> Iterator[pd.DataFrame]:
    """Where the time of layers of the first shape goes, by operator, at the smallest rate: why a
    number misses.
    """
    s, (n, p, q), rows = run.scale, run.scale.shapes[0], []
    where: dict[str, Any] = {"device": run.device, "dtype": s.dtypes[0]}
    x, y = torch.randn(n, p, requires_grad=True, **where), torch.randn(n, q, **where)
    activity = ProfilerActivity.CPU if run.device == "cpu" else ProfilerActivity.CUDA
    for name in ("exact", *s.layer_estimators):
        layer = SketchedLinear(p, q, parse(name, min(s.rates)), **where)  # exact: the plain layer
        bench_layer.step(layer, x, y)
        with torch.profiler.profile(activities=[activity]) as seen:
            for _ in range(s.repeats):
                bench_layer.step(layer, x, y)
        for event in seen.key_averages():
            spent = (
                event.self_cpu_time_total if run.device == "cpu" else event.self_device_time_total
            )
            rows.append(
                (
                    run.device,
                    name,
                    min(s.rates),
                    event.key,
                    event.count / s.repeats,
                    spent / s.repeats / 1e6,
                )
            )
        yield pd.DataFrame(
            rows, columns=["device", "estimator", "rate", "operator", "calls", "seconds"]
        )


def finetune(run: Run) -> Iterator[pd.DataFrame]:
    """Fine-tuning with the estimators of the training study and exactly: loss, metric, time and
    peak, step by step.
    """
    folder, cells = Sweep(run.out / "finetune"), []
    for grid in run.scale.grids:
        find_task(grid.task, grid.options).batch(
            0, 0
        )  # what is missing is an error of the part, not of every cell
        exact = replace(grid.exact(grid.seeds[0]), device=run.device)
        cells += [
            exact,
            *(replace(exact, estimator=c.name, rate=c.rate) for c in grid.choices()),
        ]
    folder.open()
    for cell in cells:
        if not folder.rows_of(cell).exists():
            finish(cell, folder.path)
        yield folder.table(cells)
    run.skipped += [f"{name}: {error}" for name, error in folder.errors(cells).items()]


# most valuable first, with each one's share of the time; the kernels, which are quick, before the
# layers that use them
PARTS: dict[str, tuple[float, Callable[[Run], Iterator[pd.DataFrame]]]] = {
    "variance": (5, variance),
    "kernels": (2, kernels),
    "layers": (8, layers),
    "probe": (1, probe),
    "profile": (1, profile),
    "memory": (5, memory),
    "redraw": (4, redraw),
    "finetune": (10, finetune),
}
