"""The curves of a plan's figure: the total against memory, for plans, one choice for all layers and
uniform rows.
"""

import numpy as np
import pandas as pd

from sketchvar.analysis.plan.baselines import find_best_single, list_singles
from sketchvar.analysis.plan.evidence import Evidence
from sketchvar.analysis.plan.programme import drop_dominated, find_least, minimize_noise

CURVES = ("plan", "best single choice", "uniform rows, any rate")


def trace_curves(evidence: Evidence, count: int = 8) -> pd.DataFrame:
    """Trace the total against memory: method (of ``CURVES``), fraction, ratio and held_out with
    their standard errors, rising in bytes.

    At ``count`` budgets from the least possible to three quarters of X's bytes, evenly spaced in
    their logarithm, and at those that the best single choices just fit.
    """
    table, largest, uniform = evidence.table, evidence.objective.largest, evidence.uniform
    found, lines = list_singles(table, largest), []
    best = {
        id(each): each
        for single in found
        if (each := find_best_single(found, single.totals.fraction)) is not None
    }
    lean = drop_dominated(table)  # once, not for every budget
    fits = {single.totals.fraction for single in best.values() if single.estimator != "exact"}
    least = min(1.001 * find_least(lean), 0.75)
    for budget in sorted(fits | set(np.geomspace(least, 0.75, count))):
        lines.append((CURVES[0], evidence.total(minimize_noise(lean, budget, largest))))
        if (single := find_best_single(found, budget)) is not None:
            lines.append((CURVES[1], evidence.total(single.chosen)))
        if uniform is not None:
            lines.append((CURVES[2], evidence.total_uniform(uniform.at(budget))))
    rows = pd.DataFrame([{"method": name, **total} for name, total in lines])
    return rows.drop(columns=["kept_bytes", "more", "more_half"]).drop_duplicates()
