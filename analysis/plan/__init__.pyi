from .candidates import list_candidates
from .plan import load_plan, save_plan
from .programme import minimize_bytes, minimize_noise
from .totals import Totals, sum_layers

__all__ = [
    "Totals",
    "list_candidates",
    "load_plan",
    "minimize_bytes",
    "minimize_noise",
    "save_plan",
    "sum_layers",
]
