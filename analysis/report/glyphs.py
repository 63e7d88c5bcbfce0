"""Small pictures of estimators, in letters: S, the values of a grid, or which entries of X are
kept.
"""

import torch
from torch import Tensor

from sketchvar.estimators import (
    Centered,
    Estimator,
    FeatureProjection,
    GridRounding,
    RowBits,
    StochasticRounding,
    Then,
)
from sketchvar.estimators.both import BothRounded
from sketchvar.estimators.estimator import KeepsMatrix
from sketchvar.estimators.exact import Exact
from sketchvar.estimators.grids import GRIDS
from sketchvar.estimators.quantize import BITS
from sketchvar.estimators.seeds import generator

ROWS, COLUMNS = 8, 24  # of the X whose entries are shown
NEAR = 0.1  # of an entry
WIDTH = 61  # of a line of grid values


def picture(estimator: Estimator) -> tuple[str, list[str]]:
    """What a picture of one draw shows, and its lines."""
    match estimator:
        case Centered():
            return picture(estimator.inner)
        case Then():
            return picture(estimator.first)
        case BothRounded():
            return picture(estimator.of_x)
        case StochasticRounding():
            return grid_title(), [mark(torch.linspace(-1, 1, 2**estimator.bits))]
        case RowBits():
            lines = [mark(torch.linspace(-1, 1, 2**bits)) for bits in BITS]
            return "the values of a row, in 1, 2, 4 or 8 bits", lines
        case GridRounding():
            return grid_title(), [mark(GRIDS[estimator.grid])]
        case Exact():
            return "the entries of X that are kept", show_entries(estimator)
        case KeepsMatrix():
            what = "R" if isinstance(estimator, FeatureProjection) else "Sᵀ"
            return f"{what}, one draw: its entries above, below and at zero", show_matrix(estimator)
    return "the entries of X that are kept: # nearly as they are, + changed", show_entries(
        estimator
    )


def grid_title() -> str:
    return "the values between the least and the largest"


def show_matrix(estimator: KeepsMatrix) -> list[str]:
    """Sᵀ (k × n) or R (p × r), from what is kept of rows of unit vectors of different length."""
    sizes = torch.linspace(0.2, 1, COLUMNS, dtype=torch.float64) ** 2
    features = isinstance(estimator, FeatureProjection)
    x = torch.eye(COLUMNS, dtype=torch.float64) if features else sizes.diag()
    kept = estimator.compress(x, 0).tensors[0]
    return write(kept.T if features else kept)


def show_entries(estimator: Estimator) -> list[str]:
    """Which entries of a small X there are in its estimate."""
    g = generator(0)
    x = (g.normals(ROWS, COLUMNS) * g.normals(ROWS, 1).exp() * g.normals(1, COLUMNS).exp()).double()
    back = estimator.contract(estimator.compress(x, 0), torch.eye(ROWS, dtype=torch.float64)).T
    same = (back - x).abs() <= NEAR * x.abs()
    return [
        "".join("#" if s else "·" if b == 0 else "+" for s, b in zip(*line, strict=True))
        for line in zip(same.tolist(), back.tolist(), strict=True)
    ]


def write(matrix: Tensor) -> list[str]:
    """A sign for each entry."""
    signs = torch.where(matrix.abs() < 1e-9, 0, matrix.sign()).int().tolist()
    return ["".join("·+-"[sign] for sign in row) for row in signs]


def mark(values: Tensor) -> str:
    """A line between the least and the largest value, with a mark at each."""
    places = (values - values.min()) / (values.max() - values.min()) * (WIDTH - 1)
    marked = set(places.round().int().tolist())
    return "".join("|" if place in marked else "·" for place in range(WIDTH))
