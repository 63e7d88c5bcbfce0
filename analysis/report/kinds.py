"""KINDS: every kind of folder that sketchvar or a Probe writes, told by its files, and what it
says.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from pyarrow import parquet

from sketchvar.analysis import records
from sketchvar.analysis.report.contents import Contents

Read = Callable[[Path, float | None], Contents]
MOST = 5  # files that an error names


@dataclass(frozen=True)
class Kind:
    """What a folder is called, the pattern of a file that it has, the function that reads it, in a
    module of this room, the question that it answers, and the columns by which that file is told
    from others of its name.
    """

    name: str
    file: str
    read: str
    question: str
    columns: frozenset[str] = frozenset()

    def matches(self, folder: Path) -> bool:
        """Whether a folder is of this kind."""
        found = next(iter(sorted(folder.glob(self.file))), None)
        return found is not None and (not self.columns or self.columns <= read_columns(found))

    def read_contents(self, folder: Path, rate: float | None) -> Contents:
        """Read the folder."""
        module, _, function = self.read.partition(".")
        read: Read = getattr(import_module(f"sketchvar.analysis.report.{module}"), function)
        return read(folder, rate)


RATIOS = (
    "How large is the noise that estimators add to weight gradients, layer by layer, next to that"
    " of drawing the minibatch?"
)
TRAINING = (
    "What does training lose to the noise of estimators, beside exact training, a smaller batch and"
    " checkpointing?"
)
COSTS = "What does the noise of an estimator cost, next to the minibatch's?"
FORKS = "As exact training on which part of the batch do estimators end, and what predicts it?"
FRONTIER = "Which estimator adds least variance for the bytes that are kept of X?"
PLAN = "Which estimator at which rate, for which layer, within a budget?"
PAPER = "What does the paper say, and what is measured?"
# the first that matches: what an item of the paper was made of lies in the same folder
KINDS = (
    Kind("an item of the paper", "paper.json", "paper.read", PAPER),
    Kind("a GPU suite", "suite.json", "gpu.read", "How fast are estimators on this GPU?"),
    Kind("training runs", "summary.parquet", "sweep.read", TRAINING),
    Kind("training runs", "sweep.json", "sweep.read", TRAINING),
    Kind(
        "redrawn minibatches",
        "truth.parquet",
        "truth.read",
        "Are the closed forms of the variance true?",
    ),
    Kind(
        "intervals",
        "intervals.parquet",
        "intervals.read",
        "Do intervals hold the truth as often as they say?",
    ),
    Kind("forks", "effective.parquet", "cost.read_forks", FORKS),
    Kind("costs of noise", "cost.parquet", "cost.read_costs", COSTS),
    Kind(
        "predicted scores",
        "scores.parquet",
        "scores.read",
        "Can a layer predict which of its rows matter?",
    ),
    Kind("an audit", "audit.parquet", "audit.read", "Is this layer biased, and how noisy is it?"),
    Kind("a frontier", "frontier.parquet", "frontier.read", FRONTIER),
    Kind("times of layers", "layer.parquet", "bench.read_layer", "How fast are the layers?"),
    Kind("training steps", "step.parquet", "bench.read_step", "What does a training step cost?"),
    Kind("peak memory", "memory.parquet", "bench.read_memory", "How far does peak memory fall?"),
    Kind("cost of the probe", "probe.parquet", "bench.read_probe", "What does a Probe cost?"),
    Kind("a frontier", "rows.parquet", "frontier.read", FRONTIER, frozenset({"family", "budget"})),
    Kind(
        "averaged sketches",
        "rows.parquet",
        "paper.read_averaging",
        PAPER,
        frozenset({"count", "single"}),
    ),
    Kind(
        "damage by block", "rows.parquet", "paper.read_damage", PAPER, frozenset({"block", "seeds"})
    ),
    Kind(
        "throughput",
        "rows.parquet",
        "bench.read_throughput",
        PAPER,
        frozenset({"plain", "repeats"}),
    ),
    Kind("a run", "rows.parquet", "study.read", RATIOS),
    Kind("files of a probe", "step-*.parquet", "study.read", RATIOS),
    Kind("a plan", "plan.json", "plan.read", PLAN),
    Kind("work that has just begun", "run.json", "kinds.refuse", ""),
)


def read_columns(file: Path) -> set[str]:
    """The columns of a table in a file."""
    try:
        return set(parquet.read_schema(file).names)
    except Exception:  # says what is wrong with the file
        return set(records.read_rows(file).columns)


def refuse(folder: Path, rate: float | None) -> Contents:
    """Raise ValueError: nothing is there to be shown."""
    raise ValueError(f"{folder} holds no rows; what writes to it stopped before the first one")


def find_kind(folder: Path) -> Kind:
    """Find the kind of a folder. Raises ValueError for one that is not there or of no kind."""
    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {folder}; give the folder of a run, as in runs/<name>"
        )
    for kind in KINDS:
        if kind.matches(folder):
            return kind
    inside = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    holds = ", ".join(inside[:MOST]) + (" and more" if len(inside) > MOST else "")
    known = ", ".join(dict.fromkeys(kind.name for kind in KINDS))
    raise ValueError(
        f"{folder} holds {holds or 'nothing'}: nothing that sketchvar writes ({known}); give the"
        " folder of a run, as in runs/<name>"
    )


def read_folder(folder: Path, rate: float | None = None) -> Contents:
    """Read a folder of any kind; ``rate`` is the one to show, where there is a choice. Raises
    ValueError for a folder of no kind, without rows, or that cannot be read.
    """
    kind = find_kind(folder)
    try:
        return replace(kind.read_contents(folder, rate), question=kind.question)
    except KeyError as error:
        raise ValueError(
            f"{folder} holds {kind.name} of another version, without {error}; measure again"
        ) from None
