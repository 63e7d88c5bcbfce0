"""Every notebook and recipe runs from top to bottom, small; the gallery shows all of them."""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
HERE = ROOT / "notebooks"
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
GALLERY = (HERE / "README.md").read_text()


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("SKETCHVAR_SMALL", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.syspath_prepend(HERE)
    sys.modules.pop("run", None)
    import run

    return run


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, run):
    found = run.run_notebook(path, keep=False)
    assert run.list_images(found), "no figure"


@pytest.mark.slow
def test_recipes_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures = run.run_recipes(keep=False)
    assert len(figures) == 8
    for question, figure in figures.items():
        titles = [axes.get_title() for axes in figure.axes] + [figure.get_suptitle()]
        assert any(titles), question


def test_recipes_are_ten_lines_or_so(run):
    _, *recipes = run.list_recipes().items()
    assert len(recipes) == 8
    for question, lines in recipes:
        own = [line for line in lines.splitlines() if line and "import" not in line]
        assert len(own) <= 12, f"{question}: {len(own)} lines"
        assert max(map(len, lines.splitlines())) <= 110, question


def test_the_gallery_shows_what_there_is():
    linked = re.findall(r"\]\(([^)#]+)\)", GALLERY)
    for path in NOTEBOOKS:
        assert path.name in linked and f"pictures/{path.stem}.png" in linked
    for link in set(linked):
        assert (HERE / link).exists(), link
    for file in (HERE / "pictures").iterdir():
        assert file.stat().st_size < 150_000, f"{file.name} is large"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_read_as_it_is(path):
    """Outputs are there, figures have titles, functions are short, and nothing of tests shows."""
    notebook = nbformat.read(path, as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells)
    assert "SMALL" not in source and "environ" not in source
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "run it: python notebooks/run.py"
    assert not any(out.output_type == "error" for cell in code for out in cell.outputs)
    for cell in code:
        if "plt.show()" in cell.source:
            assert "title" in cell.source, cell.source
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 6, node.name
