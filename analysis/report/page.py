"""Page: one self-contained HTML page for a folder: figures, tables, words, provenance."""

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from sketchvar.analysis import records
from sketchvar.analysis.report.kinds import read_folder
from sketchvar.analysis.report.table import Column, Table, write_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 9  # of a table that fits on paper
PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.45 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 0.6em 0 1.4em; font-size: 13px }
table { font-variant-numeric: tabular-nums }
th, td { padding: 0.15em 0.7em; border-bottom: 1px solid #ddd; text-align: right }
th, td { white-space: nowrap }
.text, .words td { text-align: left; white-space: normal }
thead th { border-bottom: 1px solid #666; vertical-align: bottom; max-width: 8em }
thead th { white-space: normal; overflow-wrap: break-word }
tbody + tbody { border-top: 1px solid #666 }
.wide { overflow-x: auto }
figure { margin: 1em 0 } figure img { max-width: 100%; height: auto }
figcaption { font-size: 13px; color: #555 }
@media print { body { margin: 0; max-width: none; font-size: 10pt } table { font-size: 7.5pt }
  figure, tr { break-inside: avoid } h2 { break-after: avoid } }
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")


def report(folder: Path, rate: float | None = None) -> str:
    """The page of a folder of any kind, finished or not; it loads nothing from elsewhere.

    ``rate`` is that of figures and of the table of layers, where there are several. Raises
    ValueError for a folder of no kind, without rows, and for a rate that was not measured.
    """
    contents = read_folder(folder, rate)
    parts = [("Words", write_words(contents.words))] if contents.words else []
    parts += [(table.title, write_table(table)) for table in contents.tables]
    if contents.sentences:
        parts.append(("In words", write_paragraphs(contents.sentences)))
    drawn = ((p.caption or p.name.replace("_", " "), p.draw()) for p in contents.pictures)
    figures = [embed(picture, caption) for caption, picture in drawn]
    parts += [("Figures", "".join(figures))] if figures else []
    parts += [(table.title, write_table(table)) for table in contents.details]
    about = write_words(flatten(contents.provenance))
    parts.append(("Provenance", about or "<p>No file here says where these rows come from.</p>"))
    body = "\n".join(f"<h2>{escape(title)}</h2>\n{part}" for title, part in parts)
    return PAGE.substitute(title=escape(f"sketchvar: {contents.title}"), body=body)


def write_report(folder: Path, out: Path, rate: float | None = None) -> None:
    """Write the page of a folder to a file. Raises ValueError as ``report``, and where there is no
    folder for the file.
    """
    page = report(folder, rate)
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent}; make it, or choose another --out")
    records.atomically(out, lambda part: part.write_text(page, encoding="utf-8"))


def write_table(table: Table) -> str:
    """A table, as several one below the other where it has more columns than fit on paper, the
    first column in each.
    """
    first, *others = table.columns
    more = COLUMNS - 1
    blocks = [others[i : i + more] for i in range(0, len(others), more)]
    caption = f"<p>{escape(table.caption)}</p>\n" if table.caption else ""
    return "".join(write_block(table, (first, *block)) for block in blocks) + caption


def write_block(table: Table, columns: tuple[Column, ...]) -> str:
    """Some columns of a table, all text escaped."""
    head = "".join(write_cell("th", column, column.title) for column in columns)
    sections = []
    for rows in table.sections:
        lines = (
            "".join(write_cell("td", column, column.show(row)) for column in columns)
            for row in rows
        )
        sections.append("".join(f"<tr>{line}</tr>\n" for line in lines))
    body = "".join(f"<tbody>\n{section}</tbody>\n" for section in sections)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n{body}</table></div>\n'


def write_cell(tag: str, column: Column, text: str) -> str:
    """A cell; words stand left."""
    left = ' class="text"' if column.text else ""
    return f"<{tag}{left}>{escape(text)}</{tag}>"


def write_words(lines: Mapping[str, Any]) -> str:
    """Names and what they are."""
    cells = (
        (name, write_digits(value) if isinstance(value, float) else str(value))
        for name, value in lines.items()
    )
    body = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>\n" for name, text in cells
    )
    return f'<table class="words">\n{body}</table>\n' if body else ""


def write_paragraphs(lines: tuple[str, ...]) -> str:
    return "".join(f"<p>{escape(line)}</p>\n" for line in lines)


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A dictionary of dictionaries as one: "study seed" -> 0."""
    lines: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            lines |= flatten(value, f"{prefix}{name} ")
        else:
            lines[f"{prefix}{name}"] = value
    return lines


def embed(drawn: "Axes | Figure", caption: str) -> str:
    """The figure as a PNG (150 dpi) in the page itself."""
    import matplotlib.pyplot as plt

    figure = drawn.get_figure(root=True) if hasattr(drawn, "get_figure") else drawn
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    plt.close(figure)
    data, text = base64.b64encode(file.getvalue()).decode(), escape(caption)
    return (
        f'<figure><img alt="{text}"'
        f' src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>\n'
    )
