"""sweep(): train the cells of a grid by joblib, on processes or on Ray; every finished cell is a
file.
"""

import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import Any

import joblib
import pandas as pd
import torch

from sketchvar.analysis import records
from sketchvar.analysis.claim import make_folder
from sketchvar.analysis.meter import Progress
from sketchvar.analysis.sweep.cell import COLUMNS, Cell, train
from sketchvar.analysis.sweep.grid import MEMORY, Grid
from sketchvar.analysis.tasks import find_task

BACKENDS = ("processes", "ray")
PERIOD = 0.5  # seconds between two looks at which cells are done


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
        free = ("seeds", "steps", "evaluations", "fractions")
        fields = {name: value for name, value in asdict(grid).items() if name not in free}
        fields = {name: value for name, value in fields.items() if value or name != "plans"}
        # a file of before 0.2 holds what float32 leaves, in whichever precision the task trains,
        # and one of before 0.3 no peaks
        fields |= {"precision": find_task(grid.task, grid.options).precision, "columns": MEMORY}
        path = self.path / f"memory-{records.fingerprint(fields)}.parquet"
        if not path.exists():
            records.write_rows(path, grid.activations(progress))
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
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)

    def errors(self, cells: Sequence[Cell]) -> dict[str, str]:
        """Name -> error of the cells that failed."""
        return {
            c.name: records.read_json(self.error_of(c))["error"]
            for c in cells
            if self.error_of(c).exists()
        }


def sweep(
    cells: Sequence[Cell],
    folder: Sweep,
    jobs: int = 1,
    backend: str = "processes",
    retry: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Train every cell that is not finished, ``jobs`` at a time; returns the rows of all finished
    cells.

    A sweep stopped at any moment goes on where it was, with any number of jobs: what is finished is
    a whole file, what is not is trained again from its start. Cells that failed are left alone
    unless ``retry``; their errors are files too. ``progress`` is called with the number of cells
    that have either, of how many. Raises ValueError where a file cannot be written or Ray is
    missing.
    """
    folder.open()
    for file in (path for cell in cells if (path := folder.rows_of(cell)).exists()):
        records.read_rows(file)  # a file cut short is an error now, not after hours
    left = [cell for cell in cells if not folder.rows_of(cell).exists()]
    if retry:
        for cell in left:
            folder.error_of(cell).unlink(missing_ok=True)
    left = [cell for cell in left if not folder.error_of(cell).exists()]
    with use_backend(backend), watch(cells, folder, progress):
        try:
            joblib.Parallel(n_jobs=jobs)(joblib.delayed(finish)(cell, folder.path) for cell in left)
        except BrokenExecutor:
            raise ValueError(
                "a worker was killed, perhaps for its memory; finished cells are kept: give the"
                " same command again, with fewer --jobs"
            ) from None
    return folder.table(cells)


@contextmanager
def watch(cells: Sequence[Cell], folder: Sweep, progress: Progress | None) -> Iterator[None]:
    """Within, call ``progress`` whenever more cells have a file.

    Files tell it wherever cells are trained: Ray's backend of joblib says nothing before the end.
    """
    if progress is None:
        yield
        return
    ended = Event()

    def look() -> None:
        known = -1
        while True:
            last = ended.wait(PERIOD)  # first, so that the last look sees all that came before
            if (done := folder.done(cells)) > known:
                known = done
                progress(done, len(cells))
            if last:
                return

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def finish(cell: Cell, path: Path) -> None:
    """Train one cell and write its file, or its error's. Raises ValueError where neither can be
    written.
    """
    folder = Sweep(path)
    try:
        try:
            rows = train(cell)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            report = {"error": what, "cell": asdict(cell), "traceback": traceback.format_exc()}
            records.write_json(folder.error_of(cell), report)
        else:
            records.write_rows(folder.rows_of(cell), rows)
            folder.error_of(cell).unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot write {cell.name} to {path} ({error.strerror}); free some space and give the"
            " same command again: finished cells are kept"
        ) from None


def use_backend(backend: str) -> AbstractContextManager[Any]:
    """Have joblib run on processes of this machine, or on the Ray cluster that RAY_ADDRESS names
    (else a local one).
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; known are {', '.join(BACKENDS)}")
    if backend == "processes":
        return joblib.parallel_config(backend="loky")
    try:
        from ray.util.joblib import register_ray
    except ImportError:
        raise ValueError('--backend ray needs: pip install "sketchvar[cluster]"') from None
    register_ray()
    return joblib.parallel_config(backend="ray")
