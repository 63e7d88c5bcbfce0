from .redraws import Redraws
from .rows import estimator_truth, truth

__all__ = [
    "Redraws",
    "estimator_truth",
    "truth",
]
