"""Make recorded results again, by the commands of their README, and compare: which numbers are the
same, and is the rest within its errors?
"""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy.stats import norm

from sketchvar.analysis import records
from sketchvar.analysis.columns import METHOD

LEVEL = 0.01  # joint: the chance that a folder is rejected where all differences are chance
EQUAL = 1e-6  # of the number or of its error, if that is more: sums in another order
PLACE = ("hardware", "threads", "python", "torch")  # on which rounding depends
COMMAND = re.compile(
    r"^(?: {4})?sketchvar ((?:.*\\\n)*.*)$|`sketchvar ([^`]*--out [^`]*)`", re.MULTILINE
)
ABOUT = {"run", *METHOD} - {"batch", "layers", "seed", "checkpointing"}  # differ, and may
INDEX = {"step", "seed", "batch", "rate", "horizon", "fraction", "factor", "draw", "fork", "budget"}


class Agreement(NamedTuple):
    """How one column came out again: ``numbers`` there are, ``equal`` of them; ``within`` are at
    most two standard errors of the difference apart, ``largest`` is the largest such z-score, and
    ``apart`` the median relative difference. NaN where no error is known.
    """

    file: str
    column: str
    numbers: int
    equal: int
    within: float
    largest: float
    apart: float


def find_commands(folder: Path) -> list[list[str]]:
    """The words after ``sketchvar`` of every command in its README, or the nearest one above, that
    writes to the folder.

    Raises ValueError where there are none.
    """
    where = folder.resolve()
    for place in (where, *where.parents):
        if (place / "README.md").exists():
            text = (place / "README.md").read_text(encoding="utf-8")
            found = [one or other for one, other in COMMAND.findall(text)]
            commands = [shlex.split(words.replace("\\\n", "")) for words in found]
            named = [words for words in commands if writes(words, where)]
            if named:
                return named
        if (place / ".git").exists():
            break
    raise ValueError(
        f"no README in {folder} or above it has a command that names it, as in sketchvar cost --out"
        f" {folder}; nothing says how it was made"
    )


def writes(words: Sequence[str], folder: Path) -> bool:
    """Whether a command writes to the folder: by ``--out``, or where there is none beside what it
    reads.
    """
    places = [words[words.index("--out") + 1]] if "--out" in words else words
    return any(inside(folder, word) is not None for word in places)


def inside(folder: Path, word: str) -> Path | None:
    """Where in the folder a path of a command lies ("." the folder itself), None where it is not of
    it. READMEs name paths from the root of their checkout.
    """
    parts = Path(word).parts
    for i in range(len(parts), 0 if len(parts) > 1 else 1, -1):  # one word may be anything
        if folder.parts[-i:] == parts[:i]:
            return Path(*parts[i:])
    return None


def find_root(folder: Path, commands: Sequence[Sequence[str]]) -> Path:
    """The directory from which the paths of these commands are named."""
    where = folder.resolve()
    for word in (word for words in commands for word in words):
        rest = inside(where, word)
        if rest is not None:
            return where.parents[len(Path(word).parts) - len(rest.parts) - 1]
    return Path.cwd()


def reproduce(
    folder: Path, out: Path, run: Callable[[list[str], Path], int]
) -> list[tuple[list[str], int]]:
    """Run every command that made ``folder`` with ``out`` in its place; returns each with its exit
    code, and stops after the first that fails.

    ``run`` is given the words after ``sketchvar`` and the directory that they are meant from.
    """
    commands, where, done = find_commands(folder), folder.resolve(), []
    root = find_root(folder, commands)
    for words in commands:
        moved = [
            word if rest is None else str((out / rest).resolve())
            for word, rest in ((word, inside(where, word)) for word in words)
        ]
        done.append((moved, run(moved, root)))
        if done[-1][1]:
            break
    return done


def compare(folder: Path, again: Path) -> list[Agreement]:
    """Compare every table of two folders, column by column.

    Raises ValueError where a table is missing from the second, or has other rows.
    """
    tables = sorted(path.relative_to(folder) for path in folder.rglob("*.parquet"))
    if not tables:
        raise ValueError(f"{folder} holds no tables (*.parquet); there is nothing to compare")
    return [each for table in tables for each in compare_tables(folder, again, table)]


def compare_places(folder: Path, again: Path) -> list[str]:
    """What differs between the machines that two folders were made on: hardware, threads, versions,
    as "threads 1, now 2"; empty where that is not known.
    """
    found = []
    for path in sorted(folder.rglob("run.json")):
        other = again / path.relative_to(folder)
        if other.exists():
            old, new = records.read_json(path), records.read_json(other)
            found += [
                f"{name} {old[name]}, now {new[name]}"
                for name in PLACE
                if name in old and name in new and old[name] != new[name]
            ]
    return list(dict.fromkeys(found))


def compare_tables(folder: Path, again: Path, name: Path) -> Iterator[Agreement]:
    """Compare one table of two folders; rows are matched by what they are of."""
    old, new = (records.read_rows(place / name) for place in (folder, again))
    shared = [column for column in map(str, old) if column in new and column not in ABOUT]
    keys = [
        c for c in shared if c in INDEX or is_bool_dtype(old[c]) or not is_numeric_dtype(old[c])
    ]
    both = number(old, keys).merge(
        number(new, keys),
        on=[*keys, "number"],
        how="outer",
        suffixes=("", "_again"),
        indicator=True,
    )
    alone = int((both["_merge"] != "both").sum())
    if alone:
        raise ValueError(
            f"{name} has {len(old)} rows in {folder} and {len(new)} in {again}, {alone} of them of"
            f" something that the other has not; was the command, or what it does, changed?"
        )
    for column in shared:
        if column not in keys and not column.endswith("_stderr"):
            yield agree(both, str(name), column)


def number(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Rows with the number of each among those that are of the same."""
    text = rows.astype({key: str for key in keys if not is_numeric_dtype(rows[key])})
    counted = text.groupby(keys, dropna=False).cumcount() if keys else range(len(text))
    return text.assign(number=counted)


def agree(both: pd.DataFrame, file: str, column: str) -> Agreement:
    """Compare one column of matched rows."""
    old, new = (both[c].to_numpy(dtype=float) for c in (column, f"{column}_again"))
    apart, size = np.abs(new - old), np.maximum(np.abs(old), np.abs(new))
    z = np.full(len(both), np.nan)
    error = np.full(len(both), float(column.endswith("_z")))  # that of a z-score is one
    errors = [f"{column}_stderr", f"{column}_stderr_again"]
    if set(errors) <= set(both):
        error = np.hypot(*(both[c].to_numpy(dtype=float) for c in errors))
        np.divide(apart, error, out=z, where=error > 0)
    error[~np.isfinite(error)] = 0.0  # one that is not known makes nothing equal
    same = (apart <= EQUAL * np.fmax(size, error)) | (old == new)
    same |= np.isnan(old) & np.isnan(new)
    z[same] = np.where(np.isnan(z[same]), np.nan, 0.0)
    known = ~np.isnan(z)
    share = apart[~same & (size > 0)] / size[~same & (size > 0)]
    return Agreement(
        file,
        column,
        len(both),
        int(same.sum()),
        float((z[known] <= 2).mean()) if known.any() else float("nan"),
        float(z[known].max()) if known.any() else float("nan"),
        float(np.nanmedian(share)) if len(share) and not np.isnan(share).all() else 0.0,
    )


def reject(found: Sequence[Agreement], level: float = LEVEL) -> tuple[list[Agreement], float]:
    """The columns with a z-score beyond the bound of the joint ``level`` over all numbers that have
    an error (Bonferroni), and that bound.
    """
    with_error = [each for each in found if not np.isnan(each.largest)]
    bound = float(norm.isf(level / 2 / max(1, sum(each.numbers for each in with_error))))
    return [each for each in with_error if each.largest > bound], bound
