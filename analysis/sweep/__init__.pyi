from .cell import Cell, train
from .grid import Grid
from .outcome import summarize
from .prediction import predict
from .run import Sweep, sweep

__all__ = [
    "Cell",
    "Grid",
    "Sweep",
    "predict",
    "summarize",
    "sweep",
    "train",
]
