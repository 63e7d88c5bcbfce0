"""sketchvar train: train with every estimator, rate and seed beside the baselines."""

from dataclasses import dataclass

from sketchvar.analysis.commands.asked import OfSweep
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder
from sketchvar.analysis.commands.training import train_grid


@dataclass(frozen=True)
class Asked(OfSweep):
    """The options of ``train``."""


def main(asked: Asked, screen: Screen) -> None:
    """Train what is left of the grid, then show what came of it."""
    out = asked.choose_folder("train", asked.task)
    train_grid(asked.make_grid(), out, asked, screen)
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
