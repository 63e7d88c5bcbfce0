"""What commands that train have in common: a task, a folder, a study, a sweep, as it was asked
for.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.option import Shown, option

if TYPE_CHECKING:
    from sketchvar.analysis.study.study import Study
    from sketchvar.analysis.sweep.grid import Grid
    from sketchvar.analysis.sweep.run import Workers
    from sketchvar.analysis.tasks import Options, Task

TRAINED = ("gaussian", "countsketch", "centered(countsketch)", "uniform-rows", "rounding:2")
# the fields of a task that have an option of their own
FIELDS = ("pretrained", "data_dir", "batch_size", "learning_rate", "depth", "precision")


class WordError(ValueError):
    """What was typed is wrong: the message ends with where to read what can be."""


@contextmanager
def blame_words() -> Iterator[None]:
    """Within, what is wrong are the words on the command line."""
    try:
        yield
    except ValueError as error:
        raise WordError(str(error)) from None


def pick_device(name: str) -> str:
    """The device called ``name``; for "auto" a GPU if there is one. Raises WordError for one that
    is unknown or absent.
    """
    import torch

    from sketchvar.estimators.catalog import check_known

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    with blame_words():
        check_known("device", kind, ["auto", "cpu", "cuda"])
        if kind == "cuda":
            count = torch.cuda.device_count()
            if not (number or "0").isdecimal() or int(number or 0) >= count:
                raise ValueError(
                    f"device {name} is not here ({count} CUDA devices); use --device auto or cpu"
                )
        elif number:
            raise ValueError(f"unknown device {name!r}; did you mean {kind!r}?")
    return name


@dataclass(frozen=True)
class OnDevice(Shown):
    """What runs somewhere."""

    device: str = options.device()

    def pick_device(self) -> str:
        """The device itself, where "auto" was asked for."""
        return pick_device(self.device)


@dataclass(frozen=True)
class ToFolder(Shown):
    """What is written to a folder, which goes on with the same work."""

    out: Path | None = options.out()
    resume: bool = options.resume()

    def choose_folder(self, *what: str) -> Path:
        """--out, or a new folder named by what is made and the time. Raises WordError where nothing
        is there to be resumed.
        """
        if self.resume and self.out is None:
            raise WordError("--resume needs --out, the folder of the run to go on with")
        if self.resume and self.out and not (self.out.is_dir() and any(self.out.iterdir())):
            raise WordError(f"there is nothing to resume in {self.out}; leave out --resume")
        name = "-".join(re.sub(r"[^\w.]+", "-", word).strip("-") for word in what)
        return self.out or Path("runs") / f"{name}-{datetime.now():%Y-%m-%dT%H-%M-%S}"


@dataclass(frozen=True)
class OfTask(Shown):
    """What trains a task."""

    task: str = options.task()
    pretrained: str | None = options.model()
    data_dir: str | None = options.data_dir()
    batch_size: int | None = options.batch_size()
    learning_rate: float | None = options.learning_rate()
    depth: int | None = options.depth()
    precision: str | None = options.precision()
    settings: tuple[str, ...] = options.settings()

    def list_changes(self) -> "Options":
        """The fields of the task that were given. Raises WordError for one that it does not have,
        or that cannot be read.
        """
        from sketchvar.analysis.commands.settings import read_settings

        with blame_words():
            given = {name: getattr(self, name) for name in FIELDS}
            given = {name: value for name, value in given.items() if value is not None}
            return read_settings(self.task, given, self.settings)

    def make_task(self) -> "Task":
        """The task. Raises WordError for one that is not known."""
        from sketchvar.analysis.tasks import find_task

        changes = self.list_changes()
        with blame_words():
            return find_task(self.task, changes)


@dataclass(frozen=True)
class OfStudy(ToFolder, OnDevice, OfTask):
    """What makes a study."""

    steps: int | None = options.steps()
    measure_at: tuple[int, ...] | None = options.measure_at()
    batches: int = options.batches()
    metric: str | None = options.metric()
    estimators: tuple[str, ...] = options.estimators()
    rates: tuple[float, ...] = options.rates()
    seed: int = options.seed()

    def make_study(self, steps: int | None = None, points: tuple[int, ...] = ()) -> "Study":
        """The study; of ``steps`` and measured at ``points`` where nothing was asked for."""
        from sketchvar.analysis.study.study import Study

        task = self.make_task()
        total = self.steps if self.steps is not None else task.steps if steps is None else steps
        usual = points or tuple(
            sorted({s for s in task.measure_at if s <= total} | {max(total, 0)})
        )
        device, changes = self.pick_device(), self.list_changes()
        with blame_words():
            return Study(
                task=self.task,
                steps=total,
                measure_at=self.measure_at or usual,
                estimators=self.estimators,
                rates=self.rates,
                device=device,
                seed=self.seed,
                options=changes,
                batches=self.batches,
                metric=self.metric,
            )


@dataclass(frozen=True)
class OfSweep(ToFolder, OnDevice, OfTask):
    """What trains the cells of a grid."""

    estimators: tuple[str, ...] = options.estimators(TRAINED)
    rates: tuple[float, ...] = options.rates(0.5, 0.1)
    seeds: tuple[int, ...] = option(
        "--seeds",
        default=(0, 1, 2),
        type=int,
        nargs="+",
        metavar="S",
        help="three or more for intervals",
    )
    steps: int | None = options.steps()
    evaluations: int = option(
        "--evaluations",
        default=10,
        type=int,
        metavar="N",
        help="validations, evenly through training",
    )
    fractions: tuple[float, ...] = option(
        "--fractions",
        default=(0.5, 0.25, 0.125, 0.0625),
        type=float,
        nargs="*",
        metavar="F",
        help="train exactly on these fractions of the batch too: what the prediction is tested by",
    )
    factors: tuple[float, ...] = option(
        "--factors",
        default=(),
        type=float,
        nargs="+",
        metavar="F",
        help=(
            "train all at these multiples of the learning rate too, and report each seed at the"
            " rate that is best over the method's other seeds (default: the one rate)"
        ),
    )
    equal_examples: bool = option(
        "--equal-examples",
        default=False,
        action="store_true",
        help=(
            "train the smaller batches of as many bytes for as many examples too, which takes more"
            " updates"
        ),
    )
    layers: str | None = option(
        "--layers",
        metavar="P",
        help=(
            "pattern of the layers that are sketched (default: all but those that see one row of an"
            " example where others see several)"
        ),
    )
    plans: tuple[Path, ...] = options.plans("train")
    costs: Path | None = option(
        "--costs",
        type=Path,
        metavar="DIR",
        help="a folder of sketchvar cost on the same task: predict by its ratios too",
    )
    horizon: float | None = options.horizon()
    jobs: int | None = options.jobs()
    threads: int = option(
        "--threads", default=1, type=int, metavar="N", help="torch's threads in each run"
    )
    backend: str = options.backend()
    cpus: float | None = option(
        "--cpus",
        type=float,
        metavar="N",
        help="on Ray: of each run (default: its threads)",
    )
    gpus: float | None = option(
        "--gpus",
        type=float,
        metavar="N",
        help="on Ray: of each run, 0.5 for two on one (default: 1 with --device cuda)",
    )
    restarts: int = option(
        "--restarts",
        default=1,
        type=int,
        metavar="N",
        help="begin a run again so often where its process or machine is lost",
    )
    retry: bool = option(
        "--retry", default=False, action="store_true", help="train the runs that failed again"
    )

    def make_workers(self) -> "Workers":
        """How its cells are trained. Raises ValueError for what makes no sense."""
        from sketchvar.analysis.sweep.run import Workers

        return Workers(self.jobs, self.backend, self.cpus, self.gpus, self.restarts)

    def make_grid(self) -> "Grid":
        """The grid. Raises WordError for what makes no sense, before anything is trained."""
        from sketchvar.analysis.plan.plan import name_plan
        from sketchvar.analysis.sweep.grid import Grid

        steps, device, changes = self.make_task().steps, self.pick_device(), self.list_changes()
        with blame_words():
            if self.threads < 1:
                raise ValueError(f"--threads must be 1 or more, got {self.threads}")
            self.make_workers()
            return Grid(
                task=self.task,
                options=changes,
                estimators=self.estimators,
                rates=self.rates,
                seeds=self.seeds,
                steps=steps if self.steps is None else self.steps,
                evaluations=self.evaluations,
                fractions=self.fractions,
                layers=self.layers,
                device=device,
                threads=self.threads,
                plans=tuple(name_plan(file) for file in self.plans),
                factors=self.factors,
                equal_examples=self.equal_examples,
            )
