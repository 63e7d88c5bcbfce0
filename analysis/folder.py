"""Folder: the files of a run, which is always in a state that a resumed run can go on from."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pandas as pd
import torch
from torch import nn

from sketchvar.analysis import records
from sketchvar.analysis.claim import claim
from sketchvar.analysis.noise.parameters import NOISE_COLUMNS
from sketchvar.analysis.noise.table import COLUMNS
from sketchvar.analysis.tasks import Task, find_task

WIDTHS = {2: torch.bfloat16, 4: torch.float32, 8: torch.float64}  # bytes of an entry of X
LOSSES = ["step", "train", "validation", "metric"]


class Asked(Protocol):
    """What a folder is of: a frozen dataclass of what was asked for, with a name of its own and the
    kind of work that it is.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    work: ClassVar[str]

    @property
    def name(self) -> str: ...


class Folder:
    """run.json (provenance), rows.parquet, noise.parquet (of every parameter), losses.parquet,
    draws.parquet, coverage.parquet (which parameters were measured in the last measured step),
    checkpoint.pt, and figures beside them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows, self.losses, self.draws = (
            path / f"{name}.parquet" for name in ("rows", "losses", "draws")
        )
        self.noise = path / "noise.parquet"
        self.coverage = path / "coverage.parquet"
        self.provenance, self.checkpoint = path / "run.json", path / "checkpoint.pt"

    def claim(self, asked: Asked, resume: bool) -> None:
        """Make the folder that of what is asked. Raises ValueError where it is not writable or
        holds something else, and where the same has begun in it but for ``resume``.
        """
        about = claim(self.path, asked.work, asdict(asked))
        if about is not None and not resume:
            raise ValueError(
                f"{self.path} holds another run; choose another --out, or go on with it by --resume"
            )

    def describe(self, asked: Asked, origin: dict[str, Any], finished: bool) -> None:
        """Write run.json."""
        about = {"work": asked.work, "run": asked.name, "finished": finished}
        records.write_json(self.provenance, about | {"study": asdict(asked), **origin})

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Keep the state from which to go on at ``step``; the rows of earlier steps have to be
        written already.
        """
        state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        records.atomically(self.checkpoint, lambda part: torch.save(state, part))

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> tuple[int, pd.DataFrame, pd.DataFrame]:
        """The step to go on from, with the rows and losses up to it; 0 and empty tables for a new
        run.
        """
        if not self.checkpoint.exists():
            return 0, pd.DataFrame(columns=COLUMNS), pd.DataFrame(columns=LOSSES)
        try:
            state = torch.load(self.checkpoint, map_location=device, weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        except Exception as error:
            raise ValueError(
                f"{self.checkpoint} is not readable ({error}); remove it to train from the start"
            ) from None
        step = state["step"]
        rows, losses = records.read_rows(self.rows), records.read_rows(self.losses)
        return step, rows[rows["step"] < step], losses[losses["step"] < step]

    def restore_noise(self, step: int) -> pd.DataFrame:
        """The noise of every parameter up to this step; an empty table for a new run, or for one of
        a version that did not write it.
        """
        if step == 0 or not self.noise.exists():
            return pd.DataFrame(columns=NOISE_COLUMNS)
        noise = records.read_rows(self.noise)
        return noise[noise["step"] < step]


def rows_of(run: Path) -> pd.DataFrame:
    """The rows of a run's folder, or of one that a Probe wrote to, a file for each step.

    Raises ValueError where there are none.
    """
    path = Folder(run).rows
    steps = [] if path.exists() else sorted(run.glob("step-*.parquet"))
    rows = (
        pd.concat([records.read_rows(step) for step in steps]) if steps else records.read_rows(path)
    )
    if rows.empty:
        raise ValueError(f"{path} holds no rows; the run stopped before its first measured step")
    rows.attrs = {}
    return rows.reset_index(drop=True)


def about_probe(run: Path) -> dict[str, Any]:
    """What the files of a Probe say of its run, the last of them: see ``records.read_about``.

    Empty where there are none.
    """
    steps = sorted(run.glob("step-*.parquet"))
    return records.read_about(steps[-1]) if steps else {}


def task_of(run: Path) -> Task:
    """The task that a run trained, with its options. Raises ValueError where its run.json does not
    say.
    """
    path = Folder(run).provenance
    study = records.read_json(path).get("study", {})
    if "task" not in study:
        raise ValueError(f"{path} names no task; give the folder of a run, as in runs/<name>")
    options = tuple((name, value) for name, value in study.get("options", ()))
    return find_task(study["task"], options)


def kept_dtype(run: Path, rows: pd.DataFrame) -> torch.dtype:
    """The dtype in which X is kept: as its bytes in the rows of a run say, or for rows of an
    earlier version the precision of the run's task. Raises ValueError where neither says it.
    """
    if "x_bytes" in rows and rows["x_bytes"].notna().any():
        line = rows[rows["x_bytes"].notna()].iloc[-1]
        return WIDTHS[round(line["x_bytes"] / (line["rows"] * line["p"]))]
    if not Folder(run).provenance.exists():
        raise ValueError(
            f"nothing in {run} says in which precision X is kept; give --precision, or measure"
            " again"
        )
    return task_of(run).dtype
