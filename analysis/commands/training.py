"""Studies and sweeps trained with a progress bar, for every command that trains one."""

from pathlib import Path
from typing import TYPE_CHECKING

from sketchvar.analysis.commands.asked import OfSweep
from sketchvar.analysis.commands.screen import Screen

if TYPE_CHECKING:
    from sketchvar.analysis.study.study import Study
    from sketchvar.analysis.sweep.grid import Grid


WHOLE = (1, 1)  # the first of one share


def train_study(study: "Study", out: Path, screen: Screen) -> None:
    """Train and measure what is left of a study."""
    from sketchvar.analysis.folder import Folder
    from sketchvar.analysis.probe.ranks import Ranks, world
    from sketchvar.analysis.study.study import run
    from sketchvar.analysis.tasks import find_task

    find_task(study.task, study.options).check()  # what is wrong with the data shows here
    folder = Folder(out)
    Ranks(world()).hear_first(lambda: folder.claim(study, resume=True))
    done, total = count_measured(folder.rows), len(study.measure_at)
    what = (
        f"Training {study.task} for {study.steps} steps on {study.device}; rows go to {folder.rows}"
    )
    if done:
        what = f"{done} of {total} measured steps are there, in {folder.rows}"
    with screen.track(what, {"step": study.steps}, out) as update:
        update("step", 0)
        run(study, out, True, lambda step, loss: update("step", step, f"loss {loss:.3f}"))


def count_measured(rows: Path) -> int:
    """How many measured steps there are in a file of rows."""
    from sketchvar.analysis.records import read_rows

    return len(set(read_rows(rows)["step"])) if rows.exists() else 0


def train_grid(
    grid: "Grid",
    out: Path,
    asked: OfSweep,
    screen: Screen,
    share: tuple[int, int] = WHOLE,
) -> bool:
    """Train what is left of a grid, or of the i-th of n shares of it, and say which runs
    failed. Once all have ended, write what came of them, and return True. Raises ValueError where
    none is finished.
    """
    from sketchvar.analysis.sweep.results import claim_sweep, read_costs, write_results
    from sketchvar.analysis.sweep.run import Sweep, sweep
    from sketchvar.analysis.tasks import find_task

    folder = Sweep(out)
    find_task(grid.task, grid.options).check()  # what is wrong with the data shows here
    if asked.costs is not None:
        read_costs(asked.costs, grid.task)  # and here, not after hours
    claim_sweep(folder, grid)
    what = "Measuring the bytes that each estimator leaves for backward"
    with screen.track(what, {"estimator": None}, out) as update:
        memory = folder.activations(
            grid, lambda done, total: update("estimator", done, total=total)
        )
    cells = grid.cells(memory)
    i, n = share
    mine = cells[i - 1 :: n]
    done, whose = folder.finished(mine), f" of share {i}/{n}" if n > 1 else ""
    what = (
        f"{done} of {len(mine)} runs{whose} are there; training the others for {grid.steps} steps"
        f" each on {grid.device}; they go to {folder.cells}"
        if done < len(mine)
        else f"{done} of {len(mine)} runs{whose} are there, in {folder.cells}"
    )
    with screen.track(what, {"run": len(mine)}, out) as update:
        update("run", done)
        sweep(
            mine, folder, asked.make_workers(), asked.retry,
            lambda finished, total: update("run", finished),
        )  # fmt: skip
    rows = folder.table(cells)
    for name, error in folder.errors(cells).items():
        screen.note(f"failed: {name}: {error}; give --retry to train it again")
    if (there := folder.done(cells)) < len(cells):
        screen.note(
            f"{there} of {len(cells)} runs have ended, all shares together; the last share to end"
            " writes what came of them, or the same command without --cells"
        )
        return False
    if rows.empty:
        raise ValueError(f"no run finished; their errors are in {folder.failed}")
    write_results(folder, grid, rows, asked.costs, asked.horizon)
    return True
