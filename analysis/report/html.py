"""Tables and words in HTML: they sort, filter and download; all text is escaped."""

import csv
import io
import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sketchvar.analysis.report.svg import name_estimators
from sketchvar.analysis.report.table import Column, Row, Table, write_digits

COLUMNS = 12  # of a table that fits on paper
LONG = 8  # rows beyond which a table can be searched
WARM, COLD = "202, 0, 32", "5, 113, 176"  # above 1, below 1


def write_section(table: Table, words: Mapping[str, str]) -> str:
    """A table under its title, with what its words mean: as several one below the other where it
    has more columns than fit on paper, the first column in each.
    """
    first, *others = table.columns
    more = COLUMNS - 1
    blocks = [others[i : i + more] for i in range(0, len(others), more)] or [[]]
    body = "".join(write_block(table, (first, *block)) for block in blocks)
    caption = f'<p class="caption">{escape(table.caption)}</p>\n' if table.caption else ""
    said = "".join(
        f'<p class="words"><b>{escape(word)}</b>: {escape(text)}</p>\n'
        for word, text in words.items()
    )
    title = escape(table.title)
    return f"<section>\n<h2>{title}</h2>\n{write_tools(table)}{body}{caption}{said}</section>\n"


def write_tools(table: Table) -> str:
    """A link to the table as CSV, with all digits, and a search where it is long."""
    data = b64encode(write_csv(table.records()).encode()).decode()
    name = escape(f"{table.name}.csv", quote=True)
    link = f'<a download="{name}" href="data:text/csv;base64,{data}">CSV</a>'
    search = '<input type="search" placeholder="filter rows" aria-label="filter rows">'
    return f'<div class="tools">{link}{search if len(table.rows) > LONG else ""}</div>\n'


def write_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV: a column for every field that any has."""
    fields = list(dict.fromkeys(name for row in records for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, fields)
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def write_block(table: Table, columns: Sequence[Column]) -> str:
    """Some columns of a table."""
    head = "".join(
        f"<th{attributes(column, column.title)}><button>{write_text(column.title)}</button></th>"
        for column in columns
    )
    body = "".join(
        f"<tbody{kind}>\n{''.join(write_row(row, columns, bool(kind)) for row in rows)}</tbody>\n"
        for kind, rows in (
            ("", table.heads),
            (' class="rows"', table.rows),
            ("", table.feet),
        )
        if rows
    )
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n{body}</table></div>\n'


def write_text(text: str) -> str:
    """Words that may break inside the name of an estimator."""
    return re.sub(r"(?<=\S)([(+])", r"\1<wbr>", escape(text))


def write_row(row: Row, columns: Sequence[Column], shaded: bool) -> str:
    """A row, of an estimator where it has one; a head or a foot has no colours."""
    of = row.get("estimator")
    cells = ""
    for column in columns:
        about = attributes(column, column.title) + (shade(row, column) if shaded else "")
        words = column.show(row)
        cells += f"<td{about}>{write_text(words) if column.text else escape(words)}</td>"
    return f"<tr{name(str(of)) if isinstance(of, str) else ''}>{cells}</tr>\n"


def attributes(column: Column, title: str) -> str:
    """Words stand left; a column of an estimator is of it."""
    return (' class="text"' if column.text else "") + (name(title) if column.heat else "")


def name(estimator: str) -> str:
    """Of which estimator an element is."""
    return f' data-of="{escape(name_estimators(estimator)[0], quote=True)}"'


def shade(row: Row, column: Column) -> str:
    """The colour of a ratio: warm above 1, cold below, by its logarithm."""
    value = row.get(column.heat) if column.heat else None
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        return ""
    far = math.log10(value)
    return f' style="background: rgba({WARM if far > 0 else COLD}, {min(abs(far) / 2, 1) / 2:.2f})"'


def write_words(lines: Mapping[str, Any]) -> str:
    """Names and what they are."""
    pairs = (
        (name, write_digits(value) if isinstance(value, float) else str(value))
        for name, value in lines.items()
    )
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>\n" for name, text in pairs)


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A dictionary of dictionaries as one: "study seed" -> 0."""
    lines: dict[str, Any] = {}
    for field, value in content.items():
        if isinstance(value, Mapping):
            lines |= flatten(value, f"{prefix}{field} ")
        else:
            lines[f"{prefix}{field}"] = value
    return lines
