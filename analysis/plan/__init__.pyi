from .plan import Totals, candidates, least_bytes, least_noise, load_plan, save_plan, totals

__all__ = [
    "Totals",
    "candidates",
    "least_bytes",
    "least_noise",
    "load_plan",
    "save_plan",
    "totals",
]
