"""What comes of a sweep, as files of its folder: whose it is, rows.parquet, summary.parquet,
predictions.parquet.
"""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.claim import claim
from sketchvar.analysis.sweep.grid import Grid
from sketchvar.analysis.sweep.outcome import summarize
from sketchvar.analysis.sweep.prediction import predict
from sketchvar.analysis.sweep.run import Sweep
from sketchvar.analysis.sweep.tuned import at_best_rates

# of grids of one folder: they say which cells are trained, not how
FREE = ("estimators", "rates", "seeds", "fractions", "layers", "plans", "factors", "equal_examples")


def claim_sweep(folder: Sweep, grid: Grid) -> None:
    """Make a folder that of a grid's training. One with other estimators, rates, seeds, fractions
    or layers trains on in it; any other is refused with ValueError.
    """
    claim(folder.path, "sweep", asdict(grid), "sweep.json", "grid", FREE)
    folder.describe(grid)  # first: by this file others know whose the folder is
    folder.open()


def write_results(
    folder: Sweep,
    grid: Grid,
    rows: pd.DataFrame,
    costs: Path | None = None,
    horizon: float | None = None,
) -> None:
    """Write the rows of a grid's finished cells and what they say, each method at its own best
    learning rate if there are several: final values beside the baselines, and the prediction where
    exact training had several batches; those by metric and cost too where a folder of
    ``sketchvar cost`` is given.
    """
    records.write_rows(folder.path / "rows.parquet", rows)
    rows = at_best_rates(rows)
    table = summarize(rows, folder.activations(grid))
    records.write_rows(folder.path / "summary.parquet", table)
    file = folder.path / "predictions.parquet"
    if len(set(rows[rows["estimator"] == "exact"]["batch"])) > 1:
        told = None if costs is None else read_costs(costs, grid.task)
        records.write_rows(file, predict(rows, costs=told, horizon=horizon))
    else:
        file.unlink(missing_ok=True)  # of a larger grid


def read_costs(folder: Path, task: str) -> pd.DataFrame:
    """Read the costs of a folder of ``sketchvar cost``. Raises ValueError where it has none, or
    those of another task.
    """
    table = records.read_rows(folder / "cost.parquet")
    if {task} != (other := set(table["task"])):
        raise ValueError(
            f"{folder} holds the cost of {' '.join(sorted(other))}, not of {task}; give one of the"
            " same task"
        )
    return table
