from .best import BASELINE, FAMILIES, average, find_best, find_envelope, merge_lines
from .rows import ESTIMATORS, FRACTIONS, frontier, of_run

__all__ = [
    "BASELINE",
    "ESTIMATORS",
    "FAMILIES",
    "FRACTIONS",
    "average",
    "find_best",
    "find_envelope",
    "frontier",
    "merge_lines",
    "of_run",
]
