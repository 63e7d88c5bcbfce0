from .cell import Cell, train
from .grid import Grid
from .outcome import summarize
from .prediction import predict
from .run import Sweep, Workers, sweep

__all__ = [
    "Cell",
    "Grid",
    "Sweep",
    "Workers",
    "predict",
    "summarize",
    "sweep",
    "train",
]
