from .candidates import list_candidates
from .evidence import Evidence
from .make import Budget, make_plan
from .measured import measure_layers
from .plan import load_plan, save_plan
from .programme import minimize_bytes, minimize_noise
from .totals import Totals, sum_layers

__all__ = [
    "Budget",
    "Evidence",
    "Totals",
    "list_candidates",
    "load_plan",
    "make_plan",
    "measure_layers",
    "minimize_bytes",
    "minimize_noise",
    "save_plan",
    "sum_layers",
]
