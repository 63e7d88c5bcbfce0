"""sweep(): train the cells of a grid, here, on processes or on Ray; every finished cell is a
file.
"""

import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sketchvar.analysis import records
from sketchvar.analysis.claim import make_folder
from sketchvar.analysis.meter import Progress
from sketchvar.analysis.sweep.cell import COLUMNS, Cell, train
from sketchvar.analysis.sweep.grid import MEMORY, Grid
from sketchvar.analysis.sweep.workers import (
    BACKENDS,
    Ended,
    list_gpus,
    run_here,
    run_on_processes,
    run_on_ray,
)
from sketchvar.analysis.tasks import find_task
from sketchvar.estimators.catalog import check_known


class Sweep:
    """The folder of a sweep: cells/<cell>.parquet for what is finished, failed/<cell>.json for what
    is not.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.cells, self.failed = path, path / "cells", path / "failed"
        self.provenance = path / "sweep.json"

    def open(self) -> None:
        """Make the folders. Raises ValueError where they cannot be written to."""
        for folder in (self.path, self.cells, self.failed):
            make_folder(folder)

    def describe(self, grid: Grid) -> None:
        """Write sweep.json: the grid, and where and with what it is trained."""
        origin = (
            records.provenance(torch.device(grid.device))
            | find_task(grid.task, grid.options).provenance()
        )
        about = {"grid": asdict(grid), "left_out": grid.left_out}
        records.write_json(self.provenance, about | origin)

    def activations(self, grid: Grid, progress: Progress | None = None) -> pd.DataFrame:
        """``grid.activations()``, measured once and kept in memory-<...>.parquet."""
        free = ("seeds", "steps", "evaluations", "fractions", "factors", "equal_examples")
        fields = {name: value for name, value in asdict(grid).items() if name not in free}
        fields = {name: value for name, value in fields.items() if value or name != "plans"}
        # a file of before 0.2 holds what float32 leaves, in whichever precision the task trains,
        # and one of before 0.3 no peaks
        fields |= {"precision": find_task(grid.task, grid.options).precision, "columns": MEMORY}
        path = self.path / f"memory-{records.fingerprint(fields)}.parquet"
        if not path.exists():
            found = grid.activations(progress)
            if not path.exists():  # else another of several commands was faster: one table for all
                records.write_rows(path, found)
        return records.read_rows(path)

    def rows_of(self, cell: Cell) -> Path:
        return self.cells / f"{cell.name}.parquet"

    def error_of(self, cell: Cell) -> Path:
        return self.failed / f"{cell.name}.json"

    def finished(self, cells: Sequence[Cell]) -> int:
        """How many of these cells are trained."""
        return sum(self.rows_of(cell).exists() for cell in cells)

    def done(self, cells: Sequence[Cell]) -> int:
        """How many of these cells are trained or have failed."""
        return sum(self.rows_of(c).exists() or self.error_of(c).exists() for c in cells)

    def table(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """The rows of all finished ones of these cells, in the order of the cells."""
        parts = [
            records.read_rows(self.rows_of(cell)) for cell in cells if self.rows_of(cell).exists()
        ]
        if not parts:
            return pd.DataFrame(columns=COLUMNS)
        # older cells do not say what there was one way of
        found = pd.concat(parts, ignore_index=True).fillna({"factor": 1.0, "longer": False})
        return found.astype({"longer": bool}) if "longer" in found else found

    def keep(self, cell: Cell, found: pd.DataFrame | dict[str, Any] | Exception) -> None:
        """Write the rows of a cell, or what went wrong. Raises ValueError where neither can be
        written.
        """
        if isinstance(found, Exception):
            found = report(cell, found)
        try:
            if isinstance(found, pd.DataFrame):
                records.write_rows(self.rows_of(cell), found)
                self.error_of(cell).unlink(missing_ok=True)
            else:
                records.write_json(self.error_of(cell), found)
        except OSError as error:
            raise ValueError(
                f"cannot write {cell.name} to {self.path} ({error.strerror}); free some space and"
                " give the same command again: finished cells are kept"
            ) from None

    def errors(self, cells: Sequence[Cell]) -> dict[str, str]:
        """Name -> error of the cells that failed."""
        return {
            c.name: records.read_json(self.error_of(c))["error"]
            for c in cells
            if self.error_of(c).exists()
        }


@dataclass(frozen=True)
class Workers:
    """How cells are trained: ``jobs`` at a time (None: one, one on each GPU, or as many as Ray has
    room for), on this machine's "processes" or by "ray", where each has ``cpus`` (None: its
    threads) and ``gpus`` (None: one if it trains on a GPU). A cell whose process is lost is begun
    again, ``restarts`` times.
    """

    jobs: int | None = None
    backend: str = "processes"
    cpus: float | None = None
    gpus: float | None = None
    restarts: int = 1

    def __post_init__(self) -> None:
        check_known("backend", self.backend, BACKENDS)
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"--jobs must be 1 or more, got {self.jobs}")
        if self.restarts < 0:
            raise ValueError(f"--restarts must be 0 or more, got {self.restarts}")
        for name, number in (("cpus", self.cpus), ("gpus", self.gpus)):
            if number is not None and self.backend != "ray":
                raise ValueError(f"--{name} is for --backend ray; leave it out")
            if number is not None and number < 0:
                raise ValueError(f"--{name} must be 0 or more, got {number:g}")

    def train(self, cells: Sequence[Cell]) -> Ended[Cell]:
        """Train cells of one device; yields each with what came of it, as it ends. Raises
        ValueError for a GPU by its number on Ray.
        """
        device = cells[0].device if cells else "cpu"
        if self.backend == "ray":
            if ":" in device:
                raise ValueError(
                    f"on Ray each run sees its own GPU as cuda, got --device {device}; give"
                    " --device cuda"
                )
            cpus = (
                self.cpus if self.cpus is not None else max((c.threads for c in cells), default=1)
            )
            gpus = self.gpus if self.gpus is not None else float(device == "cuda")
            return run_on_ray(attempt, cells, self.jobs, cpus, gpus, self.restarts)
        shared = list_gpus(device)
        jobs = self.jobs or max(len(shared), 1)
        if jobs == 1:
            return run_here(attempt, cells)
        return run_on_processes(attempt, cells, jobs, shared, self.restarts)


def sweep(
    cells: Sequence[Cell],
    folder: Sweep,
    workers: Workers = Workers(),
    retry: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Train every cell that is not finished; returns the rows of all finished cells.

    A sweep stopped at any moment goes on where it was, in any order and with any workers: what is
    finished is a whole file, what is not is trained again from its start. Cells that failed are
    left alone unless ``retry``; their errors are files too. ``progress`` is called with the number
    of cells that have either, of how many, as each ends. Raises ValueError where a file cannot be
    written or Ray is missing.
    """
    folder.open()
    for file in (path for cell in cells if (path := folder.rows_of(cell)).exists()):
        records.read_rows(file)  # a file cut short is an error now, not after hours
    left = [cell for cell in cells if not folder.rows_of(cell).exists()]
    if retry:
        for cell in left:
            folder.error_of(cell).unlink(missing_ok=True)
    left = [cell for cell in left if not folder.error_of(cell).exists()]
    for cell, found in workers.train(left):
        folder.keep(cell, found)
        if progress is not None:
            progress(folder.done(cells), len(cells))
    return folder.table(cells)


def attempt(cell: Cell) -> pd.DataFrame | dict[str, Any]:
    """Train one cell; its rows, or what went wrong."""
    try:
        return train(cell)
    except Exception as error:
        return report(cell, error)


def report(cell: Cell, error: Exception) -> dict[str, Any]:
    """Say what went wrong with a cell."""
    return {
        "error": f"{type(error).__name__}: {error}",
        "cell": asdict(cell),
        "traceback": "".join(traceback.format_exception(error)),
    }
