from .made import make_pair
from .pair import compare, draw_errors, frontier, variance
from .result import Comparison, Frontier

__all__ = [
    "Comparison",
    "Frontier",
    "compare",
    "draw_errors",
    "frontier",
    "make_pair",
    "variance",
]
