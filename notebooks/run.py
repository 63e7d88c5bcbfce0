"""Run notebooks and the recipes of README.md, keep their outputs, and make the gallery's pictures.

python notebooks/run.py                      # all of them
python notebooks/run.py 02_play recipes      # some
"""

import base64
import io
import re
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
from matplotlib import pyplot as plt
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
SHOWN = {"01_estimators": 0, "06_cost": 2, "08_paper": 4}  # which figure is shown; else the last
WIDTH = 480  # pixels
RECIPE = re.compile(r"^### (.*?)\n.*?```python\n(.*?)```", re.DOTALL | re.MULTILINE)


def run_notebook(path: Path, keep: bool = True) -> Any:
    """Run one from top to bottom; with ``keep``, write its outputs and its picture."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(HERE)}}).execute()
    if keep:
        clean(notebook)
        nbformat.write(notebook, path)
        images = list_images(notebook)
        if images:
            shrink(images[SHOWN.get(path.stem, -1)], PICTURES / f"{path.stem}.png")
    return notebook


def clean(notebook: Any) -> None:
    """Drop what changes from run to run: times, warnings, and the state of widgets, which is only
    of a session.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            told = [out for out in cell.outputs if out.get("name") != "stderr"]
            cell.outputs = [out for out in told if "widget" not in str(out.get("data"))]


def list_images(notebook: Any) -> list[bytes]:
    """The figures of a notebook, in order."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    found = [out["data"]["image/png"] for out in outputs if "image/png" in out.get("data", {})]
    return [base64.b64decode(image) for image in found]


def shrink(image: bytes, path: Path) -> None:
    """Write a picture at the gallery's width."""
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    size = WIDTH, round(picture.height * WIDTH / picture.width)
    picture.resize(size, Image.Resampling.LANCZOS).save(path, optimize=True)


def list_recipes() -> dict[str, str]:
    """Question -> lines, of README.md; what they share comes first."""
    return dict(RECIPE.findall((HERE / "README.md").read_text()))


def run_recipes(keep: bool = True) -> dict[str, Any]:
    """Run all recipes after what they share; returns question -> the figure that it drew last, or
    called ``picture`` where it was saved and so closed.
    """
    matplotlib.use("agg")
    (_, shared), *recipes = list_recipes().items()
    figures = {}
    for i, (question, lines) in enumerate(recipes, start=1):
        names: dict[str, Any] = {}
        exec(compile(shared + lines, question, "exec"), names)
        figures[question] = getattr(names.get("picture"), "figure", None) or plt.gcf()
        if keep:
            file = io.BytesIO()
            figures[question].savefig(file, dpi=150, bbox_inches="tight")
            shrink(file.getvalue(), PICTURES / f"recipe_{i}.png")
        plt.close("all")
    return figures


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    for name in sys.argv[1:] or [*sorted(p.stem for p in HERE.glob("0*.ipynb")), "recipes"]:
        start = time.time()
        run_recipes() if name == "recipes" else run_notebook(HERE / f"{name}.ipynb")
        print(f"{name}: {time.time() - start:.0f} s", flush=True)
