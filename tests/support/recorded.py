"""Final values of the recorded training runs."""

from pathlib import Path
from typing import Any

import pandas as pd

from sketchvar.analysis.sweep.outcome import LONGER
from sketchvar.analysis.sweep.pooled import Finals

DATA = Path(__file__).parents[2] / "data"
METHOD = ["estimator", "rate", "batch"]


def read_finals(task: str, value: str = "validation", smaller: bool = False) -> Finals:
    """Validation losses, or another ``value``, of a task in data/train; exact training for as many
    examples (data/equal-time), where it was recorded, is the estimator ``equal-examples``. With
    ``smaller`` also those of exact training on the batches that hold as many bytes in the precision
    that trains (data/equal-bytes), where those were recorded later.
    """
    runs = [final(DATA / "train" / task)]
    if smaller and (DATA / "equal-bytes" / task / "rows.parquet").exists():
        rows = final(DATA / "equal-bytes" / task)
        runs.append(rows[rows["batch"] < runs[0]["batch"].max()])
    if (DATA / "equal-time" / task).exists():
        runs.append(final(DATA / "equal-time" / task).assign(estimator=LONGER))
    return Finals(pd.concat(runs).pivot_table(index=METHOD, columns="seed", values=value))


def list_methods(finals: Finals) -> list[tuple[Any, ...]]:
    """Those that sketch: (estimator, rate, batch)."""
    return [m for m in finals.table.index if m[0] not in ("exact", LONGER)]


def final(folder: Path) -> pd.DataFrame:
    """The last evaluated step of every run that is not checkpointed (those repeat exact ones)."""
    rows = pd.read_parquet(folder / "rows.parquet")
    last = rows.sort_values("step", kind="stable").drop_duplicates("cell", keep="last")
    return last[~last["checkpointing"]]
