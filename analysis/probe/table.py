"""Table: the rows that a probe has measured, in memory or in a folder, and as scalars."""

from pathlib import Path
from typing import Any

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.noise.table import COLUMNS

CHUNK = 10_000  # rows that wait as tuples, which take thrice the memory of columns


class Table:
    """With ``out`` every measured step is a Parquet file there, and nothing stays in memory;
    without it, or where this is not the process that ``writes``, rows are kept column by column.

    A file carries what is ``about`` its run in the ``attrs`` of its DataFrame.
    """

    def __init__(self, out: Path | None, writer: Any = None, writes: bool = True) -> None:
        self.out: Path | None = out if writes else None
        self.writer: Any = writer if writes else None
        self.chunks: list[pd.DataFrame] = []
        self.waiting: list[tuple[Any, ...]] = []

    def add(self, step: int, rows: list[tuple[Any, ...]], about: dict[str, Any]) -> None:
        """Take the rows of a step. No file is written for a step without any."""
        if not rows:
            return
        if self.writer is not None:
            write_scalars(self.writer, pd.DataFrame(rows, columns=COLUMNS))
        if self.out is not None:
            table = pd.DataFrame(rows, columns=COLUMNS)
            table.attrs = {records.ABOUT: about}
            records.write_rows(file_of(self.out, step), table)
            return
        self.waiting += rows
        if len(self.waiting) >= CHUNK:
            self.chunks.append(pd.DataFrame(self.waiting, columns=COLUMNS))
            self.waiting = []

    def rows(self) -> pd.DataFrame:
        """All rows so far."""
        if self.out is not None:
            parts = [records.read_rows(file) for file in files_of(self.out)]
            for part in parts:
                part.attrs = {}
        else:
            parts = [*self.chunks, pd.DataFrame(self.waiting, columns=COLUMNS)]
        parts = [part for part in parts if len(part)] or [pd.DataFrame(columns=COLUMNS)]
        return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]


def claim(out: Path, resume: bool, first: int, asked: dict[str, Any]) -> None:
    """Make a folder this run's.

    Raises ValueError for a file, for a folder that holds anything unless ``resume``, and then for
    one of a run that ``asked`` for something else. A resumed run measures again from ``first`` on.
    """
    if out.is_file():
        raise ValueError(f"out= is a folder of Parquet files, and {out} is a file; name another")
    out.mkdir(parents=True, exist_ok=True)
    files = files_of(out)
    if not resume and any(not file.name.startswith(".") for file in out.iterdir()):
        raise ValueError(
            f"out={out} is not empty: it may hold another run; name another folder, or go on with"
            " its run by resume=True and first=, the number of the step to go on at"
        )
    before = records.read_about(files[-1]).get("asked", asked) if files else asked
    if different := [key for key in asked if before.get(key) != asked[key]]:
        key = different[0]
        raise ValueError(
            f"out={out} holds a run with {key}={before.get(key)}, not {asked[key]}; resume it with"
            " its own options, or name another folder"
        )
    for file in files:
        if file >= file_of(out, first):
            file.unlink()


def file_of(out: Path, step: int) -> Path:
    """The file of a measured step."""
    return out / f"step-{step:08d}.parquet"


def files_of(out: Path) -> list[Path]:
    """The files of all measured steps, in order."""
    return sorted(out.glob("step-*.parquet"))


def write_scalars(writer: Any, rows: pd.DataFrame) -> None:
    """``writer.add_scalar(tag, value, step)`` for every row: ratio/<estimator>/<rate>/<layer>; and
    once per layer and step, minibatch_variance/<layer> and grad_sq/<layer>.
    """
    for row in rows.itertuples():
        writer.add_scalar(f"ratio/{row.estimator}/{row.rate:g}/{row.layer}", row.ratio, row.step)
    for row in rows.drop_duplicates(["layer", "step"]).itertuples():
        writer.add_scalar(f"minibatch_variance/{row.layer}", row.minibatch_example, row.step)
        writer.add_scalar(f"grad_sq/{row.layer}", row.grad_sq, row.step)
