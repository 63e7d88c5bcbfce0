from .intervals import Intervals
from .redraws import Redraws
from .rows import estimator_truth, truth

__all__ = [
    "Intervals",
    "Redraws",
    "estimator_truth",
    "truth",
]
