"""Intervals (a frozen dataclass) and run(): how often ± 1.96 standard errors hold the truth, over
redrawn batches.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from sketchvar.analysis import records
from sketchvar.analysis.folder import Folder
from sketchvar.analysis.loop import Training, forward, start
from sketchvar.analysis.noise import backward, noise_scale, random_kept
from sketchvar.analysis.noise.table import (
    COLUMNS,
    Batch,
    choose_comparable,
    read_batch,
    tabulate,
)
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.tasks import Options, find_task, move
from sketchvar.estimators.seeds import fold

NOMINAL, WIDTH = 0.95, 1.96  # of a normal distribution
# what has an error, as a mean over batches or a ratio of two
QUANTITIES = {
    "variance": ("variance", None),
    "minibatch_example": ("minibatch_example", None),
    "minibatch_row": ("minibatch_row", None),
    "ratio": ("variance", "minibatch_example"),
    "alpha": ("grad_sq", "Q"),
    "noise_scale": ("noise", "signal"),
}
OF_ESTIMATORS = ("variance", "ratio")


@dataclass(frozen=True)
class Intervals:
    """What to train, for how many updates, how many batches to draw then, and how many of them
    together are one measurement, as in ``--batches``. ``exact_errors`` as of a ``Probe``.

    Raises ValueError for names that are not known and numbers that make no sense.
    """

    work: ClassVar[str] = "intervals"
    task: str
    steps: int
    draws: int = 200
    estimators: tuple[str, ...] = ("gaussian", "uniform-rows", "norm-rows")
    rate: float = 0.1
    batches: tuple[int, ...] = (1, 2, 4, 8)
    exact_errors: bool = True
    device: str = "cpu"
    seed: int = 0
    options: Options = ()

    def __post_init__(self) -> None:
        find_task(self.task, self.options)
        choose_comparable(self.estimators, self.rate)
        if self.steps < 0:
            raise ValueError(f"--steps must be 0 or more, got {self.steps}")
        if self.draws < 4 * max(self.batches):
            raise ValueError(
                f"--draws must be {4 * max(self.batches)} or more, for four measurements of"
                f" {max(self.batches)} batches, got {self.draws}"
            )

    @property
    def name(self) -> str:
        """The run's id: the task and a fingerprint of every field."""
        return f"intervals-{self.task.replace('/', '-')}-{records.fingerprint(asdict(self))}"


def run(
    asked: Intervals,
    out: Path,
    resume: bool = False,
    progress: Callable[[str, int], object] = lambda stage, done: None,
) -> Path:
    """Train, freeze, draw; write intervals.parquet to ``out``; returns ``out``.

    ``progress`` is called with ("train", updates) and ("draw", minibatches). Raises ValueError for
    a folder that cannot be used, FloatingPointError for a loss that is not finite.
    """
    folder, task = Folder(out), find_task(asked.task, asked.options)
    device = torch.device(asked.device)
    task.check()
    origin = records.provenance(device) | task.provenance()
    folder.claim(asked, resume)
    if folder.provenance.exists() and records.read_json(folder.provenance)["finished"]:
        return out
    folder.describe(asked, origin, finished=False)
    training = start(task, asked.steps, device, asked.seed)
    for step in range(asked.steps):
        progress("train", step)
        training.advance(step)
    progress("train", asked.steps)
    read = []
    for i, batch in enumerate(draw(asked, training)):
        progress("draw", i + 1)
        read.append(batch)
    table = cover_all(asked, read, task.population)
    table = table.assign(run=asked.name, step=asked.steps)
    records.write_rows(out / "intervals.parquet", table)
    folder.describe(asked, origin, finished=True)
    return out


def draw(asked: Intervals, training: Training) -> Iterator[Batch | None]:
    """Read batch after batch at frozen weights."""
    task, model, device = training.task, training.model, training.device
    chosen = choose_comparable(asked.estimators, asked.rate)
    pairs = Probe(model).watched if any(choice.needs_pair for choice in chosen) else ()
    with random_kept(model):
        for i in range(asked.draws):
            seed = fold(asked.seed, "interval", i)
            batch = move(task.batch(asked.steps, seed), device)
            torch.manual_seed(fold(seed, "mask"))
            training.optimizer.zero_grad(set_to_none=True)
            weights, exact = task.count_tokens(batch), asked.exact_errors
            probe = Probe(model, pairs=pairs, weights=weights, exact_errors=exact, parameters=False)
            with probe:
                backward(forward(task, model, batch, device), f"draw {i}")
            yield read_batch(list(probe.read().values()), chosen, task.dtype)


def cover_all(asked: Intervals, read: list[Batch | None], population: int | None) -> pd.DataFrame:
    """A line per layer, estimator (none for what is the minibatch's), quantity and number of
    batches: ``groups`` of so many, the part of them whose interval is ``known`` and of those the
    part that is ``covered``, ``told`` (the root of the mean squared error told) and ``true`` (the
    standard deviation over groups).

    The truth for a group is the mean, or the ratio of means, of all batches that are not in it.
    Where the noise hides the gradient, the interval of the noise scale is what lies above its
    ``noise_scale_least``.
    """
    chosen = choose_comparable(asked.estimators, asked.rate)

    def measure(size: int) -> pd.DataFrame:
        parts = []
        for group in range(len(read) // size):
            lines = tabulate(read[group * size : (group + 1) * size], chosen, population)
            rows = pd.DataFrame(lines, columns=COLUMNS[2:]).assign(step=group, run="")
            parts.append(rows)
        rows = pd.concat(parts, ignore_index=True)
        scale = noise_scale(rows, decay=0).drop(columns=["signal_stderr"])
        rows = rows.merge(scale, on=["step", "layer"], how="left")
        return rows.assign(Q=rows["grad_sq"] / rows["alpha"])

    lines, one = [], measure(1)
    for size in asked.batches:
        rows = one if size == 1 else measure(size)
        for name in QUANTITIES:
            keys = ["layer", "estimator"]
            for (layer, estimator), part in rows.groupby(keys, sort=False):
                if name not in OF_ESTIMATORS and estimator != asked_first(rows):
                    continue
                single = one[(one["layer"] == layer) & (one["estimator"] == estimator)]
                found = cover(name, part, single, size)
                shown = estimator if name in OF_ESTIMATORS else ""
                lines.append({"layer": layer, "estimator": shown, "quantity": name} | found)
    return pd.DataFrame(lines).assign(rate=asked.rate)


def asked_first(rows: pd.DataFrame) -> str:
    """The estimator in whose rows the minibatch's numbers are read."""
    return str(rows["estimator"].iloc[0])


def cover(name: str, part: pd.DataFrame, single: pd.DataFrame, size: int) -> dict[str, float]:
    """One quantity of one layer: ``part`` has a row per group, ``single`` one per batch."""
    above, below = QUANTITIES[name]
    sums = []
    for column in (above, below):
        each = np.ones(len(single)) if column is None else single[column].to_numpy()
        mine = each[: len(part) * size].reshape(-1, size).sum(1)
        sums.append(each.sum() - mine)
    truth = sums[0] / (sums[1] if below else len(single) - size)
    value, error = part[name].to_numpy(), part[f"{name}_stderr"].to_numpy()
    known = ~np.isnan(error)
    with np.errstate(invalid="ignore"):
        covered = np.abs(value - truth) <= WIDTH * error
    if name == "noise_scale":
        least = part["noise_scale_least"].to_numpy()
        covered = np.where(np.isnan(least), covered, least <= truth)
        known = known | ~np.isnan(least)
    count = max(int(known.sum()), 1)
    return {
        "batches": size,
        "groups": len(part),
        "known": float(known.mean()),
        "covered": float(covered[known].sum() / count) if known.any() else np.nan,
        "told": float(np.sqrt(np.nanmean(error**2))) if known.any() else np.nan,
        "true": float(np.nanstd(value, ddof=1)),
        "mean": float(np.nanmean(value)),
    }
