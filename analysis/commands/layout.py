"""Layout: a table as lines of text that fit a width, with no number ever cut."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len

if TYPE_CHECKING:
    from sketchvar.analysis.report.table import Column, Table

GAP = 2  # spaces between columns
NARROW = 16  # no column of words is made narrower than this


@dataclass(frozen=True)
class Block:
    """Columns that stand beside each other, each with its width."""

    columns: tuple["Column", ...]
    widths: tuple[int, ...]

    def write(self, cells: Sequence[Sequence[str]]) -> list[str]:
        """Lines of cells, each cell a list of lines itself: words left, numbers right."""
        lines = []
        for i in range(max(map(len, cells))):
            parts = []
            for column, width, cell in zip(self.columns, self.widths, cells, strict=True):
                part = cell[i] if i < len(cell) else ""
                space = " " * max(0, width - cell_len(part))
                parts.append(part + space if column.text else space + part)
            lines.append((" " * GAP).join(parts).rstrip())
        return lines

    def write_heading(self) -> list[str]:
        """The titles, their last lines beside each other."""
        parts = [
            wrap_title(column.title, width)
            for column, width in zip(self.columns, self.widths, strict=True)
        ]
        tall = max(map(len, parts))
        return self.write([[""] * (tall - len(part)) + part for part in parts])

    def write_row(self, cells: Sequence[str]) -> list[str]:
        """One row; words that are too long for their column go on below."""
        return self.write(
            [
                wrap_words(cell, width) if column.text else [cell]
                for cell, column, width in zip(cells, self.columns, self.widths, strict=True)
            ]
        )

    def draw_rule(self) -> str:
        return "─" * (sum(self.widths) + GAP * (len(self.widths) - 1))


def lay_out(table: "Table", width: int) -> list[str]:
    """The lines of a table: columns for which there is no room stand below the others, the first
    column repeated beside them.
    """
    sections = [
        [[column.show(row) for column in table.columns] for row in part] for part in table.sections
    ]
    widths = measure(table.columns, [row for part in sections for row in part], width)
    lines: list[str] = []
    for places in split(widths, width):
        block = Block(tuple(table.columns[i] for i in places), tuple(widths[i] for i in places))
        lines += [""] if lines else []
        lines += block.write_heading()
        for part in sections:
            lines.append(block.draw_rule())
            for row in part:
                lines += block.write_row([row[i] for i in places])
    return lines


def measure(columns: Sequence["Column"], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The width of every column: that of its longest cell or unbreakable piece of its title, and of
    words no more than there is room for.
    """
    widths = [
        max([*map(cell_len, wrap_title(column.title, 1)), *(cell_len(row[i]) for row in rows)])
        for i, column in enumerate(columns)
    ]
    numbers = [w for w, column in zip(widths, columns, strict=True) if not column.text]
    room = max(NARROW, width - GAP - max(numbers, default=0))
    if columns[0].text:
        widths[0] = min(widths[0], room)
    for i, column in enumerate(columns[1:], start=1):
        if column.text:
            widths[i] = min(widths[i], max(NARROW, width - GAP - widths[0]))
    return widths


def split(widths: Sequence[int], width: int) -> list[list[int]]:
    """Which columns stand beside each other: the first, and as many more as fit."""
    found, room = [[0]], width - widths[0]
    for i, wide in enumerate(widths[1:], start=1):
        if room < wide + GAP and len(found[-1]) > 1:
            found.append([0])
            room = width - widths[0]
        found[-1].append(i)
        room -= wide + GAP
    return found


def wrap_title(title: str, width: int) -> list[str]:
    """A title in lines of this width, broken at spaces and after hyphens only."""
    return textwrap.wrap(title, width, break_long_words=False) or [""]


def wrap_words(cell: str, width: int) -> list[str]:
    """A cell in lines of this width, broken at spaces and between the parts of a layer's name."""
    return Words(width, break_on_hyphens=False).wrap(cell) or [""]


class Words(textwrap.TextWrapper):
    """Lines that may also end after a dot that a word follows, as in encoder.layer.0.output."""

    wordsep_simple_re = re.compile(r"(\s+|(?<=\.)(?=[A-Za-z]))")
