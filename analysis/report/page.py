"""Page: one self-contained HTML page for a folder, or several beside each other: the verdict,
figures, tables, words, provenance. It loads nothing from elsewhere.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from inspect import signature
from pathlib import Path
from string import Template

from sketchvar.analysis import records
from sketchvar.analysis.report.beside import read_all
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.html import flatten, write_section, write_words
from sketchvar.analysis.report.svg import write_svg
from sketchvar.analysis.report.table import Table

PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
$style</style>
</head>
<body>
$body
<script>
$script</script>
</body>
</html>
""")
UNFINISHED = "This is still being written: what stands here is of what was measured so far."


def report(folders: Path | Sequence[Path], rate: float | None = None) -> str:
    """The page of a folder of any kind, finished or not, or of several of one kind.

    ``rate`` is that of figures and of the table of layers, where there are several. Raises
    ValueError for a folder of no kind, without rows, and for a rate that was not measured.
    """
    contents = read_all([folders] if isinstance(folders, Path) else folders, rate)
    left, sections = dict(contents.words), []
    for table in (*contents.tables, *contents.details):
        told = choose_words(table, left)  # a word is explained where it stands first
        left = {word: said for word, said in left.items() if word not in told}
        sections.append(write_section(table, told))
    body = [
        write_verdict(contents),
        "<nav></nav>\n",
        *sections[:1],
        write_figures(contents.pictures),
        *sections[1:],
        f"<h2>Words</h2>\n<dl>{write_words(left)}</dl>\n" if left else "",
        write_provenance(contents),
    ]
    room = files("sketchvar.analysis.report")
    style, script = ((room / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    title = escape(f"sketchvar: {contents.title}")
    return PAGE.substitute(title=title, style=style, script=script, body="".join(body))


def write_report(folders: Path | Sequence[Path], out: Path, rate: float | None = None) -> None:
    """Write the page of a folder, or of several, to a file. Raises ValueError as ``report``, and
    where there is no folder for the file.
    """
    page = report(folders, rate)
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent}; make it, or choose another --out")
    records.atomically(out, lambda part: part.write_text(page, encoding="utf-8"))


def write_verdict(contents: Contents) -> str:
    """The question, and what the numbers answer in at most three sentences, then what else has to
    be said.
    """
    captions = tuple(table.caption for table in contents.tables if table.caption)
    verdict = contents.verdict or contents.sentences[:3] or captions[:3]
    others = [line for line in contents.sentences if line not in verdict]
    if contents.provenance.get("finished") is False:
        others.insert(0, UNFINISHED)
    items = "".join(f"<li>{escape(line)}</li>\n" for line in verdict)
    first = f'<ol class="verdict">\n{items}</ol>\n' if items else ""
    notes = "".join(f'<p class="notice">{escape(line)}</p>\n' for line in others)
    return (
        f'<header><p class="title">sketchvar: {escape(contents.title)}</p>\n'
        f"<p>{escape(contents.question)}</p></header>\n<h1>Verdict</h1>\n{first}{notes}"
    )


def choose_words(table: Table, words: Mapping[str, str]) -> dict[str, str]:
    """The words that stand in a table's title and headings."""
    heads = [str(row.get("layer", "")) for row in (*table.heads, *table.feet)]
    text = " ".join([table.title, *(column.title for column in table.columns), *heads])

    def stands(word: str) -> bool:
        flags = re.NOFLAG if len(word) == 1 else re.IGNORECASE
        return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, flags) is not None

    return {word: said for word, said in words.items() if stands(word)}


def write_figures(pictures: Sequence[Picture]) -> str:
    """Every figure, as narrow as a phone where it can be."""
    if not pictures:
        return ""
    drawn = []
    for number, picture in enumerate(pictures):
        small = "size" in signature(picture.draw).parameters and not picture.wide
        caption = escape(picture.caption or picture.name.replace("_", " "))
        try:
            figure = picture.draw(size="column") if small else picture.draw()
        except ValueError as error:  # nothing of it is known; the rest still is
            drawn.append(f'<p class="notice">{caption}: {escape(str(error))}.</p>\n')
            continue
        drawn.append(
            f"<figure{'' if small else ' class=whole'}>{write_svg(figure, number)}"
            f"<figcaption>{caption}</figcaption></figure>\n"
        )
    return f'<h2>Figures</h2>\n<div class="figures">\n{"".join(drawn)}</div>\n'


def write_provenance(contents: Contents) -> str:
    """Where the numbers come from."""
    lines = write_words(flatten(contents.provenance))
    nothing = "<p>No file here says where these rows come from.</p>\n"
    return "<h2>Provenance</h2>\n" + (f"<dl>{lines}</dl>\n" if lines else nothing)
