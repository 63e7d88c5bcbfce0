from .closed import by_example, by_row, example_sq
from .curvature import Curvature, Hessian, Kicks
from .gauss_newton import GaussNewton
from .horizon import Dynamics
from .lanczos import spectrum
from .layer import Layer, inner_products, pair_layer
from .metric import Steps, steps_of, weigh_progress, weigh_update
from .moving import NoiseScale
from .objective import Objective
from .parameters import NOISE_COLUMNS
from .proxy import compare_proxies
from .scale import ALL, TOTAL, WHOLE, batch_fraction, noise_scale, over_steps
from .select import at_rate, by_unit, choose_rate, choose_step
from .spread import Loss, Spread, backward, exactly, random_kept, redraw, unchanged
from .table import COLUMNS, compare
from .wide import widen

__all__ = [
    "ALL",
    "COLUMNS",
    "NOISE_COLUMNS",
    "TOTAL",
    "WHOLE",
    "Curvature",
    "Dynamics",
    "GaussNewton",
    "Hessian",
    "Kicks",
    "Layer",
    "Loss",
    "NoiseScale",
    "Objective",
    "Spread",
    "Steps",
    "at_rate",
    "backward",
    "batch_fraction",
    "by_example",
    "by_row",
    "by_unit",
    "choose_rate",
    "choose_step",
    "compare",
    "compare_proxies",
    "exactly",
    "example_sq",
    "inner_products",
    "noise_scale",
    "over_steps",
    "pair_layer",
    "random_kept",
    "redraw",
    "spectrum",
    "steps_of",
    "unchanged",
    "weigh_progress",
    "weigh_update",
    "widen",
]
