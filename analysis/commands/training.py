"""train_grid(): a grid trained with a progress bar, for every command that trains one."""

from pathlib import Path
from typing import TYPE_CHECKING

from sketchvar.analysis.commands.asked import OfSweep
from sketchvar.analysis.commands.screen import Screen

if TYPE_CHECKING:
    from sketchvar.analysis.sweep.grid import Grid


def train_grid(grid: "Grid", out: Path, asked: OfSweep, screen: Screen) -> None:
    """Train what is left of a grid, write what came of it to the folder, and say which runs
    failed. Raises ValueError where none is finished.
    """
    from sketchvar.analysis.sweep.run import Sweep, sweep

    folder = Sweep(out)
    asked.made().provenance()  # reads the data: what is wrong with it shows before training
    folder.claim(grid)
    cells = grid.cells(folder.activations(grid))
    done = folder.finished(cells)
    screen.start(
        out,
        f"{done} of {len(cells)} runs are there"
        + (
            f"; training the others for {grid.steps} steps each on {grid.device}; finished ones go"
            f" to {folder.cells}"
            if done < len(cells)
            else f", in {folder.cells}"
        ),
    )
    with screen.progress({"run": len(cells)}) as update:
        update("run", done)

        def count(*_: object) -> None:
            update("run", folder.finished(cells))

        rows = sweep(cells, folder, asked.jobs, asked.backend, asked.retry, count)
    for name, error in folder.errors(cells).items():
        screen.note(f"failed: {name}: {error}; give --retry to train it again")
    if rows.empty:
        raise ValueError(f"no run finished; their errors are in {folder.failed}")
    folder.write_results(grid, rows)
