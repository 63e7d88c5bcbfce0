"""sketchvar figures: print the tables of a folder again and draw its figures."""

from dataclasses import dataclass
from pathlib import Path

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import Shown
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show_folder


@dataclass(frozen=True)
class Asked(Shown):
    """The options of ``figures``."""

    run: Path = options.run()
    rate: float | None = options.rate()


def main(asked: Asked, screen: Screen) -> None:
    """Show the folder."""
    show_folder(asked.run, screen, asked.rate)


COMMAND = Command(
    "figures",
    "print the tables and draw the figures of a folder again, finished or not",
    (
        "Print the tables of a folder that any command or a Probe wrote, and draw its figures (PNG"
        " and PDF, into the folder)."
    ),
    Asked,
    main,
)
