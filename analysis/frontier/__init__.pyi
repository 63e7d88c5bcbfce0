from .best import average, best, envelope
from .rows import BASELINE, ESTIMATORS, FRACTIONS, frontier

__all__ = [
    "BASELINE",
    "ESTIMATORS",
    "FRACTIONS",
    "average",
    "best",
    "envelope",
    "frontier",
]
