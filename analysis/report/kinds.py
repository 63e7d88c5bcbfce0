"""KINDS: every kind of folder that sketchvar or a Probe writes, told by its files, and what it
says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pyarrow import parquet

from sketchvar.analysis import records
from sketchvar.analysis.report.contents import Contents

Read = Callable[[Path, float | None], Contents]
MOST = 5  # files that an error names


@dataclass(frozen=True)
class Kind:
    """What a folder is called, the pattern of a file that it has, the columns by which that file is
    told from others of its name, and the function that reads it, in a module of this room.
    """

    name: str
    file: str
    read: str
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


# the first that matches: what an item of the paper was made of lies in the same folder
KINDS = (
    Kind("an item of the paper", "paper.json", "paper.read"),
    Kind("a GPU suite", "suite.json", "gpu.read"),
    Kind("training runs", "summary.parquet", "sweep.read"),
    Kind("training runs", "sweep.json", "sweep.read"),
    Kind("redrawn minibatches", "truth.parquet", "truth.read"),
    Kind("intervals", "intervals.parquet", "intervals.read"),
    Kind("forks", "effective.parquet", "cost.read_forks"),
    Kind("costs of noise", "cost.parquet", "cost.read_costs"),
    Kind("predicted scores", "scores.parquet", "scores.read"),
    Kind("an audit", "audit.parquet", "audit.read"),
    Kind("a frontier", "frontier.parquet", "frontier.read"),
    Kind("times of layers", "layer.parquet", "bench.read_layer"),
    Kind("peak memory", "memory.parquet", "bench.read_memory"),
    Kind("cost of the probe", "probe.parquet", "bench.read_probe"),
    Kind("a frontier", "rows.parquet", "frontier.read", frozenset({"family", "budget"})),
    Kind(
        "averaged sketches", "rows.parquet", "paper.read_averaging", frozenset({"count", "single"})
    ),
    Kind("damage by block", "rows.parquet", "paper.read_damage", frozenset({"block", "seeds"})),
    Kind("throughput", "rows.parquet", "bench.read_throughput", frozenset({"plain", "repeats"})),
    Kind("a run", "rows.parquet", "study.read"),
    Kind("files of a probe", "step-*.parquet", "study.read"),
    Kind("a plan", "plan.json", "plan.read"),
    Kind("work that has just begun", "run.json", "kinds.refuse"),
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
        return kind.read_contents(folder, rate)
    except KeyError as error:
        raise ValueError(
            f"{folder} holds {kind.name} of another version, without {error}; measure again"
        ) from None
