"""Table: rows with the numbers as they are, and how each column is written for people."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

Row = Mapping[Any, Any]  # by column
NONE = "–"


@dataclass(frozen=True)
class Column:
    """A heading, and what a row shows under it; numbers stand right, text left. A page colours
    ratios by the number in the field ``heat``.
    """

    title: str
    show: Callable[[Row], str]
    text: bool = False
    heat: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under columns: ``heads`` and ``feet`` say something of whole columns.

    Columns show values of the rows, which have more digits, and may have more fields, than are
    shown. ``name`` is a key for programs.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str = ""
    heads: tuple[Row, ...] = ()
    feet: tuple[Row, ...] = ()

    @property
    def sections(self) -> list[tuple[Row, ...]]:
        """Heads, rows and feet, those that there are."""
        return [part for part in (self.heads, self.rows, self.feet) if part]

    def records(self) -> list[dict[str, Any]]:
        """All rows as JSON can hold them: numbers as they are, None where there is none."""
        return [
            {name: to_json(value) for name, value in row.items()}
            for part in self.sections
            for row in part
        ]


def to_json(value: Any) -> Any:
    """A value that JSON can hold; one that is not finite becomes None."""
    if hasattr(value, "item"):  # of NumPy
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): to_json(inner) for name, inner in value.items()}
    return value if isinstance(value, str | int | float | None) else str(value)


def list_rows(frame: pd.DataFrame) -> tuple[Row, ...]:
    """The rows of a DataFrame."""
    return tuple({str(name): v for name, v in row.items()} for row in frame.to_dict("records"))


def name_values(values: pd.Series) -> dict[str, Any]:
    """A Series as a part of a row."""
    return {str(name): value for name, value in values.items()}


def show_text(field: str, title: str | None = None) -> Column:
    """A column of words."""
    return Column(field if title is None else title, lambda row: str(row[field]), text=True)


def show_number(
    field: str, title: str | None = None, form: Callable[[float], str] | None = None
) -> Column:
    """A column of numbers, three digits each unless ``form`` says otherwise."""
    write = form or write_digits

    def show(row: Row) -> str:
        value = row.get(field)
        return NONE if value is None or value != value else write(value)

    return Column(field if title is None else title, show)


def show_interval(field: str, title: str) -> Column:
    """A column of means with half the width of their intervals, ``field``_low to ``field``_high."""

    def show(row: Row) -> str:
        mean, high = row[field], row.get(f"{field}_high", math.nan)
        if mean != mean:
            return NONE
        written = write_fixed(mean)
        return written if high != high else f"{written} ± {high - mean:.3f}"

    return Column(title, show)


def show_error(field: str, title: str) -> Column:
    """A column of means with one standard error."""

    def show(row: Row) -> str:
        mean, error = row[field], row.get(f"{field}_stderr")
        if mean != mean:
            return NONE
        known = error is not None and error == error
        return f"{write_digits(mean)} ± {error:.1g}" if known else write_digits(mean)

    return Column(title, show)


def name_method(row: Row) -> str:
    """An estimator with its rate, where it takes one."""
    return f"{row['estimator']} {row['rate']:g}" if row["rate"] < 1 else str(row["estimator"])


def write_horizon(horizon: float) -> str:
    """A number of steps."""
    if horizon == float("inf"):
        return "∞"
    return f"{horizon:g} step" + ("s" if horizon > 1 else "")


def write_digits(value: float) -> str:
    """Three digits, and no exponent for what is large or a little small."""
    if abs(value) >= 99.95 or value == 0:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if abs(value) >= 1e-3 else f"{value:.2e}"


def write_short(value: float) -> str:
    """A number that was typed, as a rate."""
    return f"{value:g}"


def write_fixed(value: float) -> str:
    """Three digits after the point; no minus before a zero."""
    return f"{round(value, 3) + 0.0:.3f}"


def write_percent(value: float) -> str:
    """A fraction in percent, two digits where it is small."""
    return f"{100 * value:.0f} %" if abs(value) >= 0.1 else f"{100 * value:.2g} %"


def write_whole(value: float) -> str:
    """A whole number, its thousands apart."""
    return f"{value:,.0f}"


def make_table(frame: pd.DataFrame, name: str, title: str) -> Table:
    """Make a table of a DataFrame as it is, numbers with three digits."""
    columns = []
    for field in map(str, frame.columns):
        heading = field.replace("_", " ")
        numbers = is_numeric_dtype(frame[field]) and not is_bool_dtype(frame[field])
        columns.append(show_number(field, heading) if numbers else show_text(field, heading))
    return Table(name, title, tuple(columns), list_rows(frame))
