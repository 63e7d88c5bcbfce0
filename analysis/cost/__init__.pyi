from .effective import beside, effective_batches
from .fork import Forks, forks
from .measure import CURVATURES, HORIZONS, Costs, cost
from .table import by_layer, coherence, ratios

__all__ = [
    "CURVATURES",
    "HORIZONS",
    "Costs",
    "Forks",
    "beside",
    "by_layer",
    "coherence",
    "cost",
    "effective_batches",
    "forks",
    "ratios",
]
