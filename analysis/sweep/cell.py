"""Cell (a frozen dataclass): one training run. train(): its losses, metric, time, memory and ratio,
step by step.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial

import pandas as pd
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sketchvar.analysis import noise, records
from sketchvar.analysis.bench import probe as bench
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.study.study import backward, in_precision, update
from sketchvar.analysis.tasks import Batch, Options, Task, moved, named
from sketchvar.estimators import Estimator, Exact, parse, sketch_linears, unsketch
from sketchvar.estimators.choice import Flags, choose
from sketchvar.estimators.seeds import fold

COLUMNS = ["cell", "task", "estimator", "rate", "batch", "checkpointing", "layers", "seed", "step"]
COLUMNS += ["train", "validation", "metric", "ratio", "ratio_median", "seconds", "peak"]
COLUMNS += ["device", "hardware", "threads", "commit", "torch", *Flags._fields]
TIMED = ["seconds", "peak"]  # the columns that another run need not repeat to the last digit


@dataclass(frozen=True)
class Cell:
    """One training run: a task with these options, ``batch`` examples a step, its linear layers
    under ``estimator``.

    ``estimator`` is a spelling, without the rate where it takes one ("gaussian", "rounding:2");
    ``rate`` is 1 where it takes none. ``layers`` is a pattern of the layers it is given to.
    ``threads`` are torch's: sums round differently under another number. Equal cells give equal
    rows but for ``TIMED``.
    """

    task: str
    options: Options
    estimator: str
    rate: float
    batch: int
    checkpointing: bool
    seed: int
    steps: int
    evaluate_at: tuple[int, ...]
    layers: str = "*"
    device: str = "cpu"
    threads: int = 1

    def build(self) -> Estimator:
        """The estimator. Raises ValueError for a spelling that cannot be read."""
        return parse(self.estimator, self.rate)

    def prepared(self) -> Task:
        """The task with the cell's options and batch. Raises ValueError for what the task does not
        have.
        """
        return named(self.task, (*self.options, ("batch_size", self.batch)))

    @property
    def name(self) -> str:
        """The cell's id, fit for a file: what it is, and a fingerprint of every field."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        words = [
            self.task,
            self.estimator,
            f"{self.rate:g}",
            f"batch{self.batch}",
            f"seed{self.seed}",
            digest[:10],
        ]
        return "".join(c if c.isalnum() or c in "-." else "_" for c in "-".join(words))


def train(cell: Cell) -> pd.DataFrame:
    """One row per evaluated step: after ``step`` updates, ``train`` is the mean loss of the updates
    since the row before, ``validation`` and ``metric`` are of the held-out examples, ``seconds`` is
    the time of all updates so far (CPU time of the process, or on a GPU wall time), ``peak`` the
    most bytes the allocator held in one update.

    ``ratio`` is what the estimator adds to the noise of this step's batch: over all its layers,
    summed variance / summed minibatch variance (unit: example); ``ratio_median`` is the median over
    layers. NaN without a closed form.
    Raises FloatingPointError for a loss that is not finite, ValueError for a cell that cannot be
    trained.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(cell.threads)
    try:
        return trained(cell)
    finally:
        torch.set_num_threads(before)


def trained(cell: Cell) -> pd.DataFrame:
    task, device, estimator = cell.prepared(), torch.device(cell.device), cell.build()
    torch.manual_seed(fold(cell.seed, "model"))
    model = task.model().to(device)
    optimizer = task.optimizer(model)
    if cell.checkpointing:
        checkpoint_blocks(model)
    convert(model, cell, estimator)
    lines, losses, seconds, peak = [], [float("nan")], 0.0, 0
    for step in range(cell.steps + 1):
        batch = moved(task.batch(step, cell.seed), device)
        if step in cell.evaluate_at:
            torch.manual_seed(fold(cell.seed, "step", step))
            ratios = added_noise(task, model, batch, cell, estimator)
            with in_precision(task, device):
                scores = task.validate(model, device)
            lines.append((step, sum(losses) / len(losses), *scores, *ratios, seconds))
            losses.clear()
        if step == cell.steps:
            break
        torch.manual_seed(
            fold(cell.seed, "step", step)
        )  # dropout and sketches: a function of the step alone
        rate = task.rate_at(step, cell.steps)

        def one(batch: Batch = batch, rate: float = rate) -> None:
            losses.append(backward(task, model, batch, device))
            update(optimizer, rate)
            optimizer.zero_grad(
                set_to_none=True
            )  # last, so that an update begins without gradients

        if step == 1:  # the second update is the first that meets an optimizer's state
            peak = highest(one, model, optimizer, device)
        else:
            seconds += elapsed(one, device)
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss is {losses[-1]} at step {step} of {cell.name}")
    if cell.steps > 1:
        seconds_per = cell.steps / (
            cell.steps - 1
        )  # the measured update is slower: the others stand for it
        lines = [(*line[:-1], line[-1] * (seconds_per if line[0] > 1 else 1)) for line in lines]
    rows = pd.DataFrame(
        lines, columns=["step", "train", "validation", "metric", "ratio", "ratio_median", "seconds"]
    )
    origin = records.provenance(device)
    kept = {name: origin[name] for name in ("device", "hardware", "threads", "commit", "torch")}
    fields = {
        name: getattr(cell, name) for name in COLUMNS if hasattr(cell, name) and name not in kept
    }
    flags = choose(cell.estimator, cell.rate).flags._asdict()
    return rows.assign(cell=cell.name, peak=peak, **fields, **kept, **flags)[COLUMNS]


def convert(model: nn.Module, cell: Cell, estimator: Estimator) -> None:
    """Give the cell's layers its estimator; an exact step trains the plain model."""
    if not isinstance(estimator, Exact):
        done = sketch_linears(model, estimator, include=cell.layers)
        if not done.converted:
            raise ValueError(
                f"no layer of {cell.task} matches {cell.layers!r} and can be sketched:\n{done}"
            )


def added_noise(
    task: Task, model: nn.Module, batch: Batch, cell: Cell, estimator: Estimator
) -> tuple[float, float]:
    """Total and median ratio of the estimator's variance to the minibatch's, at the exact gradient
    of this batch.
    """
    if isinstance(estimator, Exact):
        return 0.0, 0.0
    if estimator.traits.no_closed_form:
        return math.nan, math.nan
    unsketch(model)
    names = [name for name in Probe(model).watched if fnmatchcase(name, cell.layers)]
    with Probe(model, pairs=names if estimator.traits.needs_pair else []) as probe:
        backward(task, model, batch, torch.device(cell.device))
    model.zero_grad(set_to_none=True)
    layers = [
        layer
        for name, layer in probe.read().items()
        if name in names and layer.example_sq is not None
    ]
    convert(model, cell, estimator)
    if not layers:
        return math.nan, math.nan
    added = torch.stack([estimator.variance(layer.moments) for layer in layers])
    drawn = torch.stack([noise.by_example(layer.example_sq, layer.moments.C) for layer in layers])  # type: ignore[arg-type]
    return (added.sum() / drawn.sum()).item(), (added / drawn).median().item()


def checkpoint_blocks(model: nn.Module) -> None:
    """Compute every block's activations again in backward: by the model's own switch, else block by
    block.
    """
    for switch in (
        "activation_checkpointing_enable",
        "gradient_checkpointing_enable",
    ):  # transformers, new and old
        if hasattr(model, switch):
            getattr(model, switch)({"use_reentrant": False})
            return
    for block in getattr(model, "blocks", model.children()):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def highest(
    work: Callable[[], None],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> int:
    """Most bytes held at once during ``work``, parameters and optimizer state included."""
    if device.type == "cpu":
        return bench.resident(model, optimizer) + bench.peak(work)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device)


def elapsed(work: Callable[[], None], device: torch.device) -> float:
    """Seconds: CPU time of this process, or wall time between synchronisations of a GPU."""
    if device.type == "cpu":
        return bench.seconds(work)
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start
