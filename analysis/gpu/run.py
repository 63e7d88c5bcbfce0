"""Run: one part of the GPU suite under way, with its time and its folder."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pandas as pd
import torch

from sketchvar.analysis.gpu.scale import Scale
from sketchvar.analysis.tasks.glue_data import first_line


@dataclass
class Run:
    """Where a part writes, on which device, until when (``monotonic`` seconds), and what it had to
    leave out.
    """

    scale: Scale
    out: Path
    device: str
    until: float
    skipped: list[str] = field(default_factory=list)

    def check(self, *_: object) -> None:
        """Raise TimeoutError when the part's time is over; takes whatever a ``progress`` callback
        is shown.
        """
        if monotonic() > self.until:
            raise TimeoutError("out of time")

    def fits(self, what: str, tables: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """The tables, until one does not fit into memory or fails, which is noted: a GPU's time is
        worth the others.
        """
        try:
            yield from tables
        except Exception as error:  # of torch, triton, the compiler that triton calls
            self.skipped.append(f"{what}: {first_line(error)}")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
