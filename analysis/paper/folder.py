"""The folder of an item: paper.json, which says which item it is and in which folders its rows
are.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sketchvar.analysis import records
from sketchvar.analysis.claim import claim
from sketchvar.analysis.paper.items import ITEMS, Drawn

if TYPE_CHECKING:
    import pandas as pd

FILE = "paper.json"


def describe(out: Path, name: str, folders: list[Path], drawn: Drawn) -> None:
    """Write paper.json. Raises ValueError for a folder, if it is none of those of the rows, that
    holds something else.
    """
    places = [
        str(each.relative_to(out)) if each.is_relative_to(out) else str(each.resolve())
        for each in folders
    ]
    if out not in folders:
        claim(out, f"paper {name}", {"folders": places}, FILE, "drawn")
    about = {"folders": places, "layer": drawn.layer, "rate": drawn.rate}
    content = {"work": f"paper {name}", "item": name, "drawn": about, "commit": records.commit()}
    records.write_json(out / FILE, content)


def read_item(out: Path) -> tuple[str, list[Path], Drawn]:
    """The item of a folder, the folders of its rows, and what is drawn of them. Raises ValueError
    where paper.json is of no item.
    """
    about = records.read_json(out / FILE)
    if about.get("item") not in ITEMS:
        raise ValueError(f"{out / FILE} names no item of the paper; known are {', '.join(ITEMS)}")
    drawn = about["drawn"]
    places = [out / place for place in drawn["folders"]]
    return about["item"], places, Drawn(drawn["layer"], drawn["rate"])


def read_rows(name: str, folders: list[Path]) -> "pd.DataFrame":
    """The rows of an item, with a column ``task`` where a folder says it. Raises ValueError where
    they are missing, or of several tasks and the item draws one.
    """
    import pandas as pd

    item = ITEMS[name]
    parts = [records.read_rows(folder / item.rows).pipe(add_task, folder) for folder in folders]
    rows = pd.concat(parts, ignore_index=True)
    found = list(rows["task"].unique()) if "task" in rows else []
    if len(found) > 1 and not item.panels:
        raise ValueError(f"paper {name} draws one task at a time; --from holds {', '.join(found)}")
    return rows


def add_task(rows: "pd.DataFrame", folder: Path) -> "pd.DataFrame":
    """Add a column ``task`` where it lacks one and run.json says it."""
    if "task" in rows or not (folder / "run.json").exists():
        return rows
    study = records.read_json(folder / "run.json").get("study", {})
    return rows.assign(task=study["task"]) if "task" in study else rows
