from .measure import CURVATURES, HORIZONS, Costs, cost
from .table import by_layer, coherence, ratios

__all__ = [
    "CURVATURES",
    "HORIZONS",
    "Costs",
    "by_layer",
    "coherence",
    "cost",
    "ratios",
]
