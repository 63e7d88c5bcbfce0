"""What small pictures of estimators show: S of one draw, the values of a grid, or X and what stands
for it.
"""

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sketchvar.analysis.report.glyph_figures import Grid, Matrix, Part, draw_parts
from sketchvar.analysis.style import save
from sketchvar.estimators import (
    CATALOG,
    Centered,
    Choice,
    Estimator,
    FeatureProjection,
    GridRounding,
    RowBits,
    StochasticRounding,
    Then,
    choices,
)
from sketchvar.estimators.both import BothRounded
from sketchvar.estimators.estimator import KeepsMatrix
from sketchvar.estimators.grids import GRIDS
from sketchvar.estimators.quantize import BITS
from sketchvar.estimators.sampling import SampledRows
from sketchvar.estimators.seeds import generator

SIZE, RATE = 24, 0.25  # rows of X, and columns; so six are kept
SCALES = {"float": "in float32", "power": "2ⁱ", "e4m3": "in e4m3"}
COLOURS = 48  # of a file


def write_pictures(folder: Path) -> list[Path]:
    """Write the picture of every name of the catalog to a folder, as PNG: their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [write_picture(choice, folder) for choice in choices(list(CATALOG), [RATE])]


def write_picture(choice: Choice, folder: Path) -> Path:
    """Write one, in so few colours that all together are small."""
    figure = draw_parts(list_parts(choice.told(torch.ones(SIZE))))
    (file,) = save(figure, folder / name_picture(choice.name), ["png"])
    with Image.open(file) as image:
        image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(file, optimize=True)
    return file


def name_picture(name: str) -> str:
    """The name of a file: a spelling without what file systems and links do not like."""
    return name.translate(str.maketrans("(:+", "---", ")"))


def list_parts(estimator: Estimator) -> list[Part]:
    """What the picture of an estimator consists of, from top to bottom."""
    match estimator:
        case Then():
            return [*list_parts(estimator.first), *list_parts(estimator.second)]
        case BothRounded():
            parts = list_parts(estimator.of_x)
            return [replace(part, title=f"X and Y: {part.title}") for part in parts]
        case StochasticRounding():
            mixed = " of the rotated row" if estimator.rotate else ""
            return [between_ends(estimator.bits, f"{2**estimator.bits} values{mixed}")]
        case RowBits():
            words = "a row in {} bit{}: {} values"
            return [between_ends(b, words.format(b, "s" * (b > 1), 2**b)) for b in BITS]
        case GridRounding():
            return [describe_grid(estimator)]
        case KeepsMatrix() | Centered():
            return [show_sketch(estimator)]
    return show_pair(estimator)


def between_ends(bits: int, title: str) -> Grid:
    """The grid of stochastic rounding."""
    values = torch.linspace(0, 1, 2**bits, dtype=torch.float64)
    return Grid(title, values.numpy(), ends=("least entry", "largest"))


def describe_grid(rounding: GridRounding) -> Grid:
    """The grid of a format of few bits."""
    values, of = GRIDS[rounding.grid], f"{rounding.block} entries" if rounding.block else "row"
    scale = SCALES[rounding.scale]
    title = f"{len(values)} values\na scale {scale} for each {of}"
    return Grid(title, values.numpy(), nearest=rounding.nearest)


def show_sketch(estimator: KeepsMatrix | Centered) -> Matrix:
    """Sᵀ (k × n) of one draw, or of a projection Rᵀ (r × p): what is kept of rows that are unit
    vectors of different length, over that length.
    """
    sizes = torch.linspace(0.2, 1, SIZE, dtype=torch.float64)
    if isinstance(estimator, FeatureProjection):
        (kept,) = estimator.compress(torch.eye(SIZE, dtype=torch.float64), 0).tensors[:1]
        return Matrix("Rᵀ, one draw", kept.T.numpy(), "features of X", "kept")
    tensors = estimator.compress(sizes.diag(), 0).tensors
    if isinstance(estimator, Centered):
        kept = torch.cat([tensors[0][None], tensors[1]]) / sizes
        return Matrix("1ᵀ/n and Sᵀ(I − 11ᵀ/n), one draw", kept.numpy(), "rows of X", "kept")
    kept = tensors[0] / sizes
    if isinstance(estimator, SampledRows):  # these keep rows times their weights in SSᵀ
        kept = kept.sqrt()
    return Matrix("Sᵀ, one draw", kept.numpy(), "rows of X", "kept")


def show_pair(estimator: Estimator) -> list[Part]:
    """A small X, and what stands for it in one estimate."""
    x = make_input()
    back = estimator.contract(estimator.compress(x, 0), torch.eye(len(x), dtype=x.dtype)).T
    return [Matrix("X", x.numpy()), Matrix("what stands for X, one draw", back.numpy())]


def make_input() -> Tensor:
    """An X whose rows and columns differ in size."""
    g = generator(0)
    x = g.normals(SIZE // 3, SIZE) * (g.normals(SIZE // 3, 1) / 2).exp()
    return (x * (g.normals(1, SIZE) / 3).exp()).double()
