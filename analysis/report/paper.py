"""What the paper's items say: what their rows say as they are, and the item's own figure."""

from functools import partial
from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.paper.items import ITEMS, Drawn, Item
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

FILE = "paper.json"


def describe(out: Path, item: str, folders: list[Path], layer: str | None, rate: float) -> None:
    """Write which item a folder is of, and in which folders its rows are."""
    places = [
        str(folder.relative_to(out)) if folder.is_relative_to(out) else str(folder.resolve())
        for folder in folders
    ]
    about = {"item": item, "folders": places, "layer": layer, "rate": rate}
    records.write_json(out / FILE, about | {"commit": records.commit()})


def contents(folder: Path, rate: float | None = None) -> Contents:
    """All of an item's folder: its own picture, and all of the folders in which its rows are."""
    from sketchvar.analysis.report.kinds import KINDS

    about = records.read_json(folder / FILE)
    name, item = about["item"], ITEMS[about["item"]]
    places = [folder / place for place in about["folders"]]
    rows = read_rows(name, item, places)
    drawn = Drawn(about["layer"], about["rate"] if rate is None else rate)
    found = [
        kind.contents(place, rate)
        for place in places
        for kind in [next(k for k in KINDS if k.file != FILE and k.matches(place))]
    ]
    return Contents(
        title=f"paper {name}: {item.about}",
        tables=tuple(table for one in found for table in one.tables),
        pictures=(Picture(name, item.about, lambda: item.draw(rows, drawn)),),
        sentences=(*item.say(rows), *(line for one in found for line in one.sentences)),
        words={word: text for one in found for word, text in one.words.items()},
        provenance=found[0].provenance if len(found) == 1 else about,
    )


def read_rows(name: str, item: Item, folders: list[Path]) -> pd.DataFrame:
    """The rows of an item, with a column ``task`` where a folder says it. Raises ValueError where
    they are of several tasks and the item draws one.
    """
    parts = [records.read_rows(folder / item.rows).pipe(add_task, folder) for folder in folders]
    rows = pd.concat(parts, ignore_index=True)
    found = list(rows["task"].unique()) if "task" in rows else []
    if len(found) > 1 and not item.panels:
        raise ValueError(f"paper {name} draws one task at a time; --from holds {', '.join(found)}")
    return rows


def add_task(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The rows with a column ``task``; a study's are told by its run.json."""
    if "task" in rows or not (folder / "run.json").exists():
        return rows
    about = records.read_json(folder / "run.json")
    return rows.assign(task=about["study"]["task"]) if "study" in about else rows


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
