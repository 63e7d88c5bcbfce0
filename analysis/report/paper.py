"""What the paper's items say: what their rows say as they are, and the item's own figure."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from sketchvar.analysis import records
from sketchvar.analysis.paper.folder import FILE, read_item, read_rows
from sketchvar.analysis.paper.items import ITEMS, Drawn
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import (
    Column,
    Table,
    list_rows,
    show_interval,
    show_number,
    show_text,
    write_whole,
)


def read(folder: Path, rate: float | None = None) -> Contents:
    """All of an item's folder: its own picture, and all of the folders in which its rows are."""
    from sketchvar.analysis.report.kinds import KINDS

    name, places, drawn = read_item(folder)
    item, rows = ITEMS[name], read_rows(name, places)
    if rate is not None:
        drawn = replace(drawn, rate=rate)
    kinds = [next(k for k in KINDS if k.file != FILE and k.matches(place)) for place in places]
    found = [kind.read_contents(place, rate) for kind, place in zip(kinds, places, strict=True)]
    return Contents(
        title=f"paper {name}: {item.about}",
        tables=tuple(table for one in found for table in one.tables),
        pictures=(Picture(name, item.about, lambda: item.draw(rows, drawn)),),
        sentences=(*item.say(rows), *(line for one in found for line in one.sentences)),
        words={word: what for one in found for word, what in one.words.items()},
        provenance={str(i): one.provenance for i, one in enumerate(found)},
    )


def read_averaging(folder: Path, rate: float | None = None) -> Contents:
    """The variance of averaged sketches beside that of one as large."""
    columns = (
        show_text("estimator"),
        show_number("count", "sketches", write_whole),
        show_number("variance"),
        show_number("stderr", "standard error"),
        show_number("one", "one as large"),
        show_number("single", "a single one"),
    )
    return read_table(folder, "averaging", "Variance of averaged sketches", columns)


def read_damage(folder: Path, rate: float | None = None) -> Contents:
    """The final loss where one block alone is sketched."""
    columns = (
        show_text("estimator"),
        show_number("block", None, write_whole),
        show_number("seeds", None, write_whole),
        show_interval("validation", "loss"),
        show_interval("validation_exact", "− exact"),
        show_number("ratio"),
    )
    return read_table(folder, "damage", "Final loss where one block is sketched", columns)


def read_table(folder: Path, item: str, title: str, columns: tuple[Column, ...]) -> Contents:
    """A folder whose rows are the table."""
    rows = records.read_rows(folder / "rows.parquet")
    about = folder / "run.json"
    draw = partial(ITEMS[item].draw, rows, Drawn(None, 1.0))
    return Contents(
        title=f"paper {item}",
        tables=(Table(item, title, columns, list_rows(rows)),),
        pictures=(Picture(item, ITEMS[item].about, draw),),
        provenance=records.read_json(about) if about.exists() else {},
    )
