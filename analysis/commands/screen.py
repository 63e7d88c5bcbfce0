"""Screen: what a command shows: tables on stdout, as wide as there is room or as JSON, and notes
and progress on stderr.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from sketchvar.analysis.commands.layout import lay_out

if TYPE_CHECKING:
    from sketchvar.analysis.report.table import Table

Update = Callable[..., None]


class Screen:
    """The two streams of a command. ``quiet`` leaves out all but tables and errors, ``as_json``
    prints tables as JSON when the command ends.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet, as_json
        self.content: dict[str, Any] = {}
        self.folder: Path | None = None
        self.out = Console(highlight=False, markup=False, emoji=False)
        self.notes = Console(stderr=True, highlight=False, markup=False, emoji=False)

    def note(self, line: str) -> None:
        """Say something that is no result."""
        if not self.quiet:
            self.notes.print(line, soft_wrap=True)

    def say(self, line: str) -> None:
        """Print a sentence of the result."""
        if self.as_json:
            self.content.setdefault("sentences", []).append(line)
        else:
            self.out.print(line)

    def list_files(self, what: str, paths: Sequence[Path]) -> None:
        """Say where files are."""
        if self.as_json:
            self.content.setdefault("files", []).extend(map(str, paths))
        elif paths and not self.quiet:
            lines = [what, *(f"  {path}" for path in paths)] if what else list(map(str, paths))
            self.out.print("\n".join(lines), soft_wrap=True)

    def show_table(self, table: "Table") -> None:
        """Print a table: in blocks, one below the other, where it is wider than the screen."""
        if self.as_json:
            same = sum(name.split(" ")[0] == table.name for name in self.content)
            self.content[f"{table.name} {same + 1}" if same else table.name] = table.records()
            return
        self.out.print(Text(table.title, style="italic"))
        for line in lay_out(table, self.out.width):
            self.out.print(line, soft_wrap=True)
        if table.caption:
            self.out.print(Text(table.caption, style="dim"))
        self.out.print()

    @contextmanager
    def track(
        self, what: str, stages: Mapping[str, int | None], folder: Path | None = None
    ) -> Iterator[Update]:
        """A bar for every stage, each with its number of steps; yields what moves them:
        ``update(stage, done, note="")``. At the first move it says ``what`` is done; from then on
        an interruption can say that it goes on in ``folder``.
        """
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        bar = Progress(*columns, console=self.notes, disable=self.quiet)
        bars = {
            name: bar.add_task(name, total=n, note="", start=False) for name, n in stages.items()
        }
        begun = False

        def update(stage: str, done: int, note: str = "", total: int | None = None) -> None:
            nonlocal begun
            if not begun:
                begun, self.folder = True, folder
                self.note(what)
                bar.start()
            bar.start_task(bars[stage])
            bar.update(bars[stage], completed=done, note=note, total=total)

        try:
            yield update
        finally:
            if begun:
                bar.stop()

    def close(self) -> None:
        """Print the JSON of what was shown."""
        if self.as_json:
            print(json.dumps(self.content, indent=1, ensure_ascii=False))
