"""sketchvar train: train with every estimator, rate and seed beside the baselines."""

from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

from sketchvar.analysis.commands.asked import OfSweep, WordError
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import option
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder
from sketchvar.analysis.commands.training import WHOLE, train_grid


def read_share(text: str) -> tuple[int, int]:
    """Read "2/8", the second of eight shares. Raises ArgumentTypeError for what is none."""
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ArgumentTypeError(f"a share is I/N, 1/N to N/N, got {text!r}")
    return int(first), int(last)


@dataclass(frozen=True)
class Asked(OfSweep):
    """The options of ``train``."""

    cells: tuple[int, int] | None = option(
        "--cells",
        type=read_share,
        metavar="I/N",
        help="train the I-th of N shares of the runs only, as a job of an array (1/N to N/N)",
    )
    config: Path | None = option(
        "--config",
        type=Path,
        metavar="FILE",
        help="a TOML file of these options, by name; what is typed besides comes before it",
    )


def main(asked: Asked, screen: Screen) -> None:
    """Train what is left of the grid, then show what came of it."""
    if asked.cells is not None and asked.out is None:
        raise WordError("--cells needs --out, the folder of all shares")
    out = asked.choose_folder("train", asked.task)
    if train_grid(asked.make_grid(), out, asked, screen, asked.cells or WHOLE):
        show_folder(out, screen)


COMMAND = Command(
    "train",
    ("train with every estimator, rate and seed beside the baselines, and compare what came of it"),
    (
        "Train a task with its linear layers under every estimator, rate and seed, beside exact"
        " training, exact training on the smaller batches that leave as many bytes for backward and"
        " that have the same peak, and activation checkpointing. Every finished run is a file: the"
        " same command goes on where it was stopped."
    ),
    Asked,
    main,
)
