"""The site has a place for every public name; `make check` builds it: a broken link breaks that."""

import re
from pathlib import Path

import sketchvar
from sketchvar.analysis import plot

ROOT = Path(__file__).parents[1]
MODULES = {
    "CATALOG",
    "analysis",
    "estimators",
    "noise",
    "plot",
}  # with pages or a line of their own


def test_every_public_name_is_in_the_api():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    told = set(re.findall(r"\w+", pages))
    assert set(sketchvar.__all__) - MODULES | set(plot.__all__) <= told


def test_what_the_site_lists_is_there():
    config = (ROOT / "mkdocs.yml").read_text()
    pages = re.findall(r"[\w/]+\.md", config[config.index("\nnav:") :])
    assert len(pages) > 10
    assert not [page for page in pages if not (ROOT / page).is_file()]
