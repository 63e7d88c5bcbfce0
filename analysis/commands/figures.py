"""sketchvar figures: draw a run's figures and print its table again."""

import argparse
import math
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from rich.console import Console
from rich.table import Table

from sketchvar.analysis import records
from sketchvar.analysis import style as figures
from sketchvar.analysis.folder import Folder, rows_of
from sketchvar.analysis.noise.scale import TOTAL, batch_fraction, noise_scale
from sketchvar.analysis.noise.select import at_rate, by_unit, choose_rate
from sketchvar.analysis.study import figures as pictures
from sketchvar.analysis.study.figures import noise_scale_through_training

CAPTION = """\
1 = as noisy as the minibatch itself; below 1 = less noisy. B: gradient noise scale in examples, from this step alone;
–: the noise hides the gradient. Effective batch: as noisy as an exact step on this part of the batch."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "figures",
        help="draw the figures and print the table of a run, finished or not",
        description=(
            "Draw the figures (PNG and PDF, into the run's folder) and print the table of a run."
        ),
    )
    this.add_argument("run", type=Path, metavar="RUN", help="the folder of a run, as in runs/NAME")
    this.add_argument(
        "--rate", type=float, metavar="R", help="the rate to show (default: 0.1, or the smallest)"
    )
    this.set_defaults(main=lambda arguments: draw(arguments.run, arguments.rate))


def draw(run: Path, rate: float | None = None) -> None:
    """Print the last measured step as a table, draw every figure, and say where the files are."""
    folder, console = Folder(run), Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file or a pipe has no width of its own
    rows = rows_of(run)
    rate = choose_rate(rows, rate)
    table(rows, rate, console)
    mpl.use("agg")
    draws = records.read_rows(folder.draws) if folder.draws.exists() else None
    console.print("\nFigures (PNG, and PDF beside each):")
    drawn = pictures.of_run(rows, draws, by_unit(rows), rate)
    drawn["noise_scale"] = noise_scale_through_training(
        noise_scale(rows, decay=0), int(rows["examples"].max())
    )
    for name, figure in drawn.items():
        console.print(f"  {figures.save(figure, run / name)[0]}", soft_wrap=True)


def table(rows: pd.DataFrame, rate: float, console: Console) -> None:
    """Ratio to the minibatch variance (unit: example) by layer and estimator, at the last measured
    step; below it the effective batch fraction, and beside it the noise scale, of that step alone:
    measured steps are far apart.
    """
    step = rows["step"].max()
    shown = at_rate(rows[rows["step"] == step], rate)
    ratios = shown.pivot_table(
        index="layer", columns="estimator", values="ratio", sort=False, dropna=False
    )
    minibatch = shown.drop_duplicates("layer").set_index("layer")["minibatch_example"]
    scale = noise_scale(shown, decay=0).set_index("layer")["noise_scale"]
    total = batch_fraction(shown).set_index(["layer", "estimator"]).loc[TOTAL]
    title = f"Estimator variance / minibatch variance (by example), rate {rate:g}, step {step}"
    grid = Table(title=title, caption=CAPTION, collapse_padding=True)
    grid.add_column("layer", no_wrap=True)
    grid.add_column("minibatch", justify="right", overflow="fold")
    grid.add_column("B", justify="right")
    for column in ratios.columns:
        grid.add_column(column.replace("-", "- "), justify="right", overflow="fold")
    for layer, line in ratios.iterrows():
        noise = f"{minibatch[str(layer)]:.1e}", whole(scale[str(layer)])
        grid.add_row(str(layer), *noise, *(f"{ratio:.2f}" for ratio in line))
    grid.add_section()
    grid.add_row("median", "", "", *(f"{ratio:.2f}" for ratio in ratios.median()))
    noise = f"{minibatch.sum():.1e}", whole(scale[TOTAL])
    grid.add_row(TOTAL, *noise, *(f"{total['ratio'][name]:.2f}" for name in ratios.columns))
    grid.add_row(
        "effective batch", "", "", *(f"{total['fraction'][name]:.0%}" for name in ratios.columns)
    )
    console.print(grid)


def whole(value: float) -> str:
    """A number of examples."""
    return "–" if math.isnan(value) else f"{value:.0f}"
