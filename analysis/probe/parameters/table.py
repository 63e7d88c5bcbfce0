"""NoiseTable: the noise of every parameter at each measured step, in memory or beside the rows."""

from pathlib import Path
from typing import Any

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.noise.parameters import NOISE_COLUMNS
from sketchvar.analysis.probe.table import CHUNK

FOLDER = "_noise"  # which a reader of the folder of rows passes over


class NoiseTable:
    """With ``out`` every measured step is a Parquet file in its folder ``_noise``; those from step
    ``first`` on are measured again. A process that does not write keeps them in memory.
    """

    def __init__(self, out: Path | None, first: int = 0, writes: bool = True) -> None:
        self.out = out / FOLDER if out is not None and writes else None
        for file in [] if self.out is None else self.out.glob("step-*.parquet"):
            if file.name >= f"step-{first:08d}.parquet":  # of a run that is measured again
                file.unlink()
        self.parts: list[pd.DataFrame] = []
        self.waiting: list[tuple[Any, ...]] = []

    def add(self, step: int, rows: list[tuple[Any, ...]]) -> None:
        """Take the rows of a step."""
        if not rows:
            return
        if self.out is not None:
            self.out.mkdir(exist_ok=True)
            table = pd.DataFrame(rows, columns=NOISE_COLUMNS)
            records.write_rows(self.out / f"step-{step:08d}.parquet", table)
            return
        self.waiting += rows
        if len(self.waiting) >= CHUNK:
            self.gather()

    def gather(self) -> None:
        """Put the rows that wait into columns."""
        if self.waiting:
            self.parts.append(pd.DataFrame(self.waiting, columns=NOISE_COLUMNS))
            self.waiting = []

    def rows(self) -> pd.DataFrame:
        """All rows so far."""
        self.gather()
        files = () if self.out is None else sorted(self.out.glob("step-*.parquet"))
        parts = [records.read_rows(file) for file in files] or self.parts
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=NOISE_COLUMNS)
