from .best import BASELINE, FAMILIES, average, best, envelope, merge_lines
from .rows import ESTIMATORS, FRACTIONS, frontier, of_run

__all__ = [
    "BASELINE",
    "ESTIMATORS",
    "FAMILIES",
    "FRACTIONS",
    "average",
    "best",
    "envelope",
    "frontier",
    "merge_lines",
    "of_run",
]
