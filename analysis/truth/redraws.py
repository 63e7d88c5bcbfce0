"""Redraws (a frozen dataclass) and run(): train a task, freeze it, and set closed forms beside
redrawn minibatches.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch
from torch import Tensor, nn

from sketchvar.analysis import records
from sketchvar.analysis.folder import Folder
from sketchvar.analysis.loop import Training, forward, start
from sketchvar.analysis.tasks import Batch, Options, find_task, move
from sketchvar.analysis.truth.rows import Seen, check, estimator_truth, truth
from sketchvar.estimators import parse
from sketchvar.estimators.seeds import fold

Progress = Callable[[str, int], object]
EVERY = 10  # draws between two writes of what is known so far


@dataclass(frozen=True)
class Redraws:
    """What to train, for how many updates, and how many minibatches to redraw then; as many again
    go to closed forms.

    ``estimator``, a spelling as in "countsketch:0.1", is set beside its own draws on one batch.
    Raises ValueError for names that are not known and numbers that make no sense.
    """

    work: ClassVar[str] = "truth"
    task: str
    steps: int
    draws: int
    estimator: str | None = None
    device: str = "cpu"
    seed: int = 0
    options: Options = ()

    def __post_init__(self) -> None:
        if (size := find_task(self.task, self.options).batch_size) < 2:
            raise ValueError(
                f"--batch-size must be 2 or more, for a variance over examples, got {size}"
            )
        if self.steps < 0:
            raise ValueError(f"--steps must be 0 or more, got {self.steps}")
        if self.draws < 3:
            raise ValueError(
                f"--draws must be 3 or more, for a variance with a standard error, got {self.draws}"
            )
        if self.estimator is not None:
            check(parse(self.estimator))

    @property
    def name(self) -> str:
        """The run's id: the task and a fingerprint of every field."""
        return f"truth-{self.task.replace('/', '-')}-{records.fingerprint(asdict(self))}"


def run(
    redraws: Redraws, out: Path, resume: bool = False, progress: Progress | None = None
) -> Path:
    """Train, freeze, redraw; write truth.parquet to ``out`` as it grows, and estimator.parquet;
    returns ``out``.

    ``progress`` is called with ("train", updates) and ("draw", minibatches). A run that was stopped
    goes on with ``resume=True`` after its last ``EVERY`` draws, to the rows that an uninterrupted
    run gives. Raises ValueError for a folder that cannot be used, FloatingPointError for a loss
    that is not finite (rows so far are kept).
    """
    folder, task = Folder(out), find_task(redraws.task, redraws.options)
    device = torch.device(redraws.device)
    progress = progress or (lambda stage, done: None)
    task.check()
    origin = records.provenance(device) | task.provenance()
    origin |= {"population": task.population, "batch_size": task.batch_size}
    folder.claim(redraws, resume)
    if folder.provenance.exists() and records.read_json(folder.provenance)["finished"]:
        return out
    folder.describe(redraws, origin, finished=False)
    training, seen = start(task, redraws.steps, device, redraws.seed), Seen()
    if folder.checkpoint.exists():
        restore(folder, training.model, seen, device)
    else:
        train(training, progress)
    model = training.model
    del training  # the optimizer's state is not needed any more
    progress("train", redraws.steps)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return forward(task, model, batch, device)

    def batches() -> Iterator[Batch]:
        for i in range(2 * seen.spread.count, 2 * redraws.draws):
            progress("draw", i)
            # dropout and the like: a function of the draw alone
            torch.manual_seed(fold(redraws.seed, "mask", i))
            yield move(task.batch(redraws.steps, fold(redraws.seed, "redraw", i)), device)

    def keep(rows: pd.DataFrame) -> None:
        if seen.spread.count % EVERY == 0 or seen.spread.count == redraws.draws:
            records.write_rows(
                out / "truth.parquet", rows.assign(run=redraws.name, step=redraws.steps)
            )
            save(folder, model, seen)

    save(folder, model, seen)
    truth(model, loss, batches(), redraws.draws, task.population, keep, seen, task.count_tokens)
    progress("draw", 2 * redraws.draws)
    if redraws.estimator is not None:
        torch.manual_seed(fold(redraws.seed, "sketch"))
        batch = move(task.batch(redraws.steps, redraws.seed), device)
        rows = estimator_truth(model, loss, batch, parse(redraws.estimator), redraws.draws)
        records.write_rows(
            out / "estimator.parquet", rows.assign(run=redraws.name, step=redraws.steps)
        )
    folder.describe(redraws, origin, finished=True)
    folder.checkpoint.unlink()
    return out


def train(training: Training, progress: Progress) -> None:
    """Take all steps of a training, as a study of the same task, seed and number of steps does."""
    for step in range(training.steps):
        progress("train", step)
        training.advance(step)


def save(folder: Folder, model: nn.Module, seen: Seen) -> None:
    """Keep the state from which to go on."""
    spread = {
        "count": seen.spread.count,
        "means": seen.spread.means,
        "squares": seen.spread.squares,
    }
    state = {"model": model.state_dict(), "forms": dict(seen.forms), **spread}
    records.atomically(folder.checkpoint, lambda part: torch.save(state, part))


def restore(folder: Folder, model: nn.Module, seen: Seen, device: torch.device) -> None:
    """Load the frozen model of an interrupted run, and what that has seen."""
    try:
        state = torch.load(folder.checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        seen.forms.update(state["forms"])
        seen.spread.count, seen.spread.means, seen.spread.squares = (
            state[key] for key in ("count", "means", "squares")
        )
    except Exception as error:
        raise ValueError(
            f"{folder.checkpoint} is not readable ({error}); remove it to start again"
        ) from None
