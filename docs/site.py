"""Hooks of mkdocs: the site has the tree of the repository, so that links between READMEs,
notebooks and docs/ hold in both.
"""

import html
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "data/**/*.md", "estimators/**/*.md", "notebooks/*.md")
PICTURES = tuple(
    f"{top}/**/*.{end}" for top in ("data", "estimators", "notebooks") for end in ("png", "svg")
)
NOTEBOOKS = "notebooks/*.ipynb"
FORMULA = re.compile(r'<(div|span) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s#:]+)(#[^()\s]*)?\)")


def on_config(config: MkDocsConfig) -> None:
    """Put the notebooks under Gallery, their own page first."""
    gallery = next(part["Gallery"] for part in config.nav or [] if "Gallery" in part)
    gallery += find("notebooks/README.md") + [page_of(path) for path in find(NOTEBOOKS)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Move the files of docs/ to their place in the repository, beside those of other folders."""
    moved = Files([])
    for file in files:
        inside = file.src_dir == config.docs_dir
        moved.append(add(f"docs/{file.src_uri}", config, file.abs_src_path) if inside else file)
    for path in find(*PAGES, *PICTURES):
        moved.append(add(path, config, str(ROOT / path)))
    for path in find(NOTEBOOKS):
        text, resources = MarkdownExporter().from_filename(ROOT / path)
        name = posixpath.basename(path).removesuffix(".ipynb")
        for picture, content in resources["outputs"].items():
            text = text.replace(f"({picture})", f"({name}_{picture})")
            moved.append(File.generated(config, f"notebooks/{name}_{picture}", content=content))
        moved.append(File.generated(config, page_of(path), content=text))
    return moved


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Follow links to notebooks and folders to their pages; what is in the repository and no page
    loses its link.
    """
    here = posixpath.dirname(page.file.src_uri)

    def mend(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        place = posixpath.normpath(posixpath.join(here, target))
        for page_there in (place, page_of(place), f"{place}/README.md"):
            if files.get_file_from_path(page_there):
                return f"[{text}]({posixpath.relpath(page_there, here or '.')}{anchor})"
        return text if (ROOT / place).exists() else link[0]

    return LINK.sub(mend, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write formulas as MathML, which browsers draw without a script."""

    def write(formula: re.Match[str]) -> str:
        return convert(html.unescape(formula[2]), "block" if formula[1] == "div" else "inline")

    return FORMULA.sub(write, content)


def add(path: str, config: MkDocsConfig, source: str | None) -> File:
    """A file of the site at a path of the repository."""
    return File.generated(config, path, abs_src_path=source)


def page_of(notebook: str) -> str:
    """The page that a notebook becomes."""
    return re.sub(r"\.ipynb$", ".md", notebook)


def find(*patterns: str) -> list[str]:
    """The files of the repository that match, as paths from its root."""
    found = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(path.relative_to(ROOT).as_posix() for path in found)
