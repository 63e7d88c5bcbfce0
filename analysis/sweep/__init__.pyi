from .cell import Cell, train
from .grid import Grid
from .outcome import summary
from .prediction import predictions
from .run import Sweep, sweep

__all__ = [
    "Cell",
    "Grid",
    "Sweep",
    "predictions",
    "summary",
    "sweep",
    "train",
]
