"""sketchvar figures: print the tables of a folder again and draw its figures."""

from dataclasses import dataclass
from pathlib import Path

from sketchvar.analysis.commands import options
from sketchvar.analysis.commands.command import Command
from sketchvar.analysis.commands.option import Shown
from sketchvar.analysis.commands.screen import Screen
from sketchvar.analysis.commands.show import show, show_folder


@dataclass(frozen=True)
class Asked(Shown):
    """The options of ``figures``."""

    runs: tuple[Path, ...] = options.runs()
    rate: float | None = options.rate()


def main(asked: Asked, screen: Screen) -> None:
    """Show the folder, or several beside each other."""
    if len(asked.runs) == 1:
        show_folder(asked.runs[0], screen, asked.rate)
        return
    from sketchvar.analysis.report.beside import read_all

    show(read_all(asked.runs, asked.rate), asked.runs[0], screen)


COMMAND = Command(
    "figures",
    "print the tables and draw the figures of a folder again, finished or not",
    (
        "Print the tables of a folder that any command or a Probe wrote, and draw its figures (PNG"
        " and PDF, into the folder). Several of one kind (runs; costs, as of models of 2, 4"
        " and 8 blocks: does coherence grow with depth?; forks; training runs; frontiers) are shown"
        " beside each other; their figures go into the first."
    ),
    Asked,
    main,
)
