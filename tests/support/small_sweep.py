"""A sweep that trains in a second, as an object and as words of the command."""

import pandas as pd

from sketchvar.analysis.sweep.cell import TIMED
from sketchvar.analysis.sweep.grid import Grid

GRID = Grid(
    "digits-mlp", (("width", 16),), ("gaussian", "rounding:2"), (0.5, 0.1), (0, 1, 2), 8, 2, (0.5,)
)


WORDS = [
    "train",
    "--task",
    "digits-mlp",
    "--steps",
    "4",
    "--evaluations",
    "1",
    "--seeds",
    "0",
    "--rates",
    "0.5",
]
WORDS += ["--estimators", "uniform-rows", "--fractions", "0.5"]


def assert_same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(a.drop(columns=TIMED), b.drop(columns=TIMED), check_exact=True)
