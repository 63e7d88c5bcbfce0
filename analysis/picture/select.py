"""What of the rows a picture shows, and under which names: rows in, rows out, or an error that
names what there is.
"""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

import pandas as pd

from sketchvar.analysis.style import label_choice

MOST = 8  # names in an error


def select(
    rows: pd.DataFrame,
    needs: Collection[str],
    of: str,
    *,
    order: Sequence[str] = (),
    layers: str | Sequence[str] | None = None,
    estimators: str | Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Select what is asked for by name or pattern (``*.query``), put the estimators (column ``of``)
    in order, and add ``label``.

    Raises ValueError for rows without the columns that are needed, without anything, or without
    what is asked for.
    """
    if missing := [name for name in needs if name not in rows]:
        raise ValueError(
            f"this picture needs the columns {', '.join(missing)}; these rows have"
            f" {list_some(rows.columns)}"
        )
    for column, asked in (("layer", layers), (of, estimators)):
        if asked is not None:
            rows = keep(rows, column, [asked] if isinstance(asked, str) else list(asked))
    if rows.empty:
        raise ValueError("there are no rows to draw; the run stopped before its first measurement")
    if order:
        keep(rows, of, list(order))
        ranks = {name: i for i, name in enumerate(order)}
        rank = rows[of].map(lambda name: ranks.get(name, len(ranks)))
        rows = rows.assign(_=rank).sort_values("_", kind="stable").drop(columns="_")
    return name_rows(rows, of, labels or {})


def keep(rows: pd.DataFrame, column: str, asked: Sequence[str]) -> pd.DataFrame:
    """Keep the rows whose ``column`` is one of the names, or matches one of the patterns, asked."""
    if column not in rows:
        raise ValueError(f"these rows have no column {column}, by which they could be chosen")
    there = list(dict.fromkeys(rows[column]))
    found = {name for one in asked for name in there if name == one or fnmatchcase(name, one)}
    for one in asked:
        if not any(name == one or fnmatchcase(name, one) for name in there):
            raise ValueError(f"no {column} {one!r} in these rows; there are {list_some(there)}")
    return rows[rows[column].isin(found)]


def name_rows(rows: pd.DataFrame, of: str, labels: Mapping[str, str]) -> pd.DataFrame:
    """Add ``label``, the estimator as a picture calls it, marked where it is an oracle or biased;
    rename layers. Markup in names is text.
    """
    added = {}
    if of in rows:
        flags = [rows.get(flag, pd.Series(False, rows.index)) for flag in ("oracle", "biased")]
        added["label"] = [
            escape(labels.get(name, name + (" (oracle)" if o else " (biased)" if b else "")))
            for name, o, b in zip(rows[of], *flags, strict=True)
        ]
    if "layer" in rows:
        added["layer"] = [escape(labels.get(name, name)) for name in rows["layer"]]
    for column in {"run", "of"} & {*rows}:  # folders have any name
        added[column] = [escape(name) for name in rows[column]]
    return rows.assign(**added)


def add_rate(rows: pd.DataFrame) -> pd.DataFrame:
    """Say the rate in ``label``, where there is one."""
    pairs = zip(rows["label"], rows["rate"], strict=True)
    return rows.assign(label=[label_choice(label, rate) for label, rate in pairs])


def escape(name: str) -> str:
    """A name that matplotlib shows as it is."""
    return str(name).replace("$", r"\$")


def list_some(names: Collection[object]) -> str:
    """Names in words, not too many."""
    shown = [str(name) for name in names][:MOST]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
