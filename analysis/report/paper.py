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
    interval,
    list_rows,
    text,
    values,
    write_whole,
)


def contents(folder: Path, rate: float | None = None) -> Contents:
    """All of an item's folder: its own picture, and all of the folders in which its rows are."""
    from sketchvar.analysis.report.kinds import KINDS

    name, places, drawn = read_item(folder)
    item, rows = ITEMS[name], read_rows(name, places)
    if rate is not None:
        drawn = replace(drawn, rate=rate)
    kinds = [next(k for k in KINDS if k.file != FILE and k.matches(place)) for place in places]
    found = [kind.contents(place, rate) for kind, place in zip(kinds, places, strict=True)]
    return Contents(
        title=f"paper {name}: {item.about}",
        tables=tuple(table for one in found for table in one.tables),
        pictures=(Picture(name, item.about, lambda: item.draw(rows, drawn)),),
        sentences=(*item.say(rows), *(line for one in found for line in one.sentences)),
        words={word: what for one in found for word, what in one.words.items()},
        provenance={str(i): one.provenance for i, one in enumerate(found)},
    )


def averaging(folder: Path, rate: float | None = None) -> Contents:
    """The variance of averaged sketches beside that of one as large."""
    columns = (
        text("estimator"),
        values("count", "sketches", write_whole),
        values("variance"),
        values("stderr", "standard error"),
        values("one", "one as large"),
        values("single", "a single one"),
    )
    return of_rows(folder, "averaging", "Variance of averaged sketches", columns)


def damage(folder: Path, rate: float | None = None) -> Contents:
    """The final loss where one block alone is sketched."""
    columns = (
        text("estimator"),
        values("block", None, write_whole),
        values("seeds", None, write_whole),
        interval("validation", "loss"),
        interval("validation_exact", "− exact"),
        values("ratio"),
    )
    return of_rows(folder, "damage", "Final loss where one block is sketched", columns)


def of_rows(folder: Path, item: str, title: str, columns: tuple[Column, ...]) -> Contents:
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
