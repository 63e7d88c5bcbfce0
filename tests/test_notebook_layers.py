"""notebooks/03_layers.ipynb runs, small."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1]


def test_notebook_runs(monkeypatch):
    monkeypatch.setenv("SKETCHVAR_SMALL", "1")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    notebook = nbformat.read(FOLDER / "notebooks" / "03_layers.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()
