"""show(): what every command ends with: the tables, sentences and figures of its folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from sketchvar.analysis.commands.screen import Screen

if TYPE_CHECKING:
    from sketchvar.analysis.report.contents import Contents


def show(contents: "Contents", folder: Path, screen: Screen, *rows: Path) -> None:
    """Print the tables and sentences of a folder, draw its figures, and say where they and the
    files of ``rows`` are.
    """
    from sketchvar.analysis.report.contents import draw

    for table in contents.tables:
        screen.show_table(table)
    for line in contents.sentences:
        screen.say(line)
    screen.list_files("", list(rows))
    screen.list_files("Figures (PNG, and PDF beside each):", draw(contents, folder))


def show_folder(folder: Path, screen: Screen, rate: float | None = None) -> None:
    """Show what there is to say of a folder of any kind."""
    from sketchvar.analysis.report.kinds import read_folder

    show(read_folder(folder, rate), folder, screen)
