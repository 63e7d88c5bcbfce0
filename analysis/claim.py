"""claim(): whose a folder is: the same work goes on in it, any other is refused by name. record():
write a table there as it grows.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pandas as pd

from sketchvar.analysis import records


def claim(
    folder: Path,
    work: str,
    asked: Mapping[str, Any],
    file: str = "run.json",
    key: str = "study",
    free: Collection[str] = (),
) -> dict[str, Any] | None:
    """Make a folder that of some work, made new where it is not there; returns what its ``file``
    says if this work has begun there before, None if it has not.

    ``work`` is what ``file`` calls it, ``asked`` the options, which ``file`` has under ``key``;
    those of ``free`` may differ, and one that came after the folder may be there unused. Raises
    ValueError for a folder that cannot be written to, that holds other work, the same with other
    options, or files that are of no work.
    """
    if not open_folder(folder, work, file):
        return None
    about = records.read_json(folder / file)
    before, found = about.get(key), about.get("work", work)
    if found != work:
        raise ValueError(f"{folder} holds a {found}, not a {work}; choose another --out")
    now = json.loads(json.dumps(dict(asked)))
    if not isinstance(before, dict) or not set(before) & set(now):
        raise ValueError(
            f"{folder} holds a {work} that does not say of what, of an earlier version; choose"
            " another --out"
        )
    for name in now:
        new = name not in before and not now[name]
        if name not in free and not new and before.get(name) != now[name]:
            raise ValueError(
                f"{folder} holds a {work} with {name} {before.get(name)}, not {now[name]}; resume"
                " it with its own options, or choose another --out"
            )
    return about


def open_folder(folder: Path, work: str, file: str) -> bool:
    """Make a folder, and say whether work that has this file has begun there. Raises ValueError
    where nothing can be written to it, and where it is not empty without that file.
    """
    make_folder(folder)
    other = sorted(each.name for each in folder.iterdir() if each.name[0] != ".")
    if (folder / file).exists():  # after the look: another command may just have begun the work
        return True
    if other:
        raise ValueError(
            f"{folder} is not empty and holds no {work}, but {other[0]}; choose another --out"
        )
    return False


def make_folder(folder: Path) -> None:
    """Make a folder. Raises ValueError where nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder, prefix="."):
            pass
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}); choose another --out"
        ) from None


def record(
    folder: Path,
    work: str,
    asked: Mapping[str, Any],
    origin: Mapping[str, Any],
    file: str,
    tables: Iterable[pd.DataFrame],
) -> Path:
    """Write a table to ``file`` of a folder whenever it has grown, and run.json with options and
    provenance; returns the folder.

    What was finished there before is left as it is, and measured again if it was not. Raises
    ValueError for a folder that cannot be used.
    """
    if (claim(folder, work, asked) or {}).get("finished"):
        return folder
    about = {"work": work, "finished": False, "study": dict(asked), **origin}
    records.write_json(folder / "run.json", about)
    for rows in tables:
        records.write_rows(folder / file, rows)
    records.write_json(folder / "run.json", about | {"finished": True})
    return folder
