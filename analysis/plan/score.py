"""The score of a plan on measured steps: its total at each, and over all, with errors."""

from math import inf, nan
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

from sketchvar.analysis.plan.candidates import weigh_layers
from sketchvar.analysis.plan.objective import Objective
from sketchvar.analysis.plan.totals import CHOICE


class Score(NamedTuple):
    """A total over so many steps, and its standard error: NaN where that is not known."""

    ratio: float
    stderr: float
    steps: int = 1

    def differ(self, other: "Score", level: float = 0.95) -> tuple[float, float]:
        """How much more the other is, with half the width of the interval of that: by Student's t
        with the degrees of freedom of Welch, as errors come from few steps; of single steps, whose
        errors were measured in them, by the normal distribution.
        """
        squares = {self: self.stderr**2, other: other.stderr**2}
        doubt = sum(v**2 / (each.steps - 1) for each, v in squares.items() if each.steps > 1)
        total = sum(squares.values())
        df = total**2 / doubt if doubt else inf
        return other.ratio - self.ratio, float(student.ppf((1 + level) / 2, df) * total**0.5)


def score_steps(plan: pd.DataFrame, measured: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """Score a plan (a row per layer: layer, estimator, rate) at every step of a table of
    ``measure_layers``: ``ratio``, the total over layers, its standard error, and of single layers
    the ``median`` and the ``largest`` number, and whose that is (``layer``).

    Layers of one batch err together: the error of a total is that of layers whose errors have one
    sign, which is the most that it can be.
    """
    weighed = measured.assign(weight=weigh_layers(measured, objective))
    rows = weighed.merge(plan[["layer", *CHOICE]], on=["layer", *CHOICE])
    lines = []
    for step, part in rows.groupby("step"):
        worst = part.iloc[int(part["each"].argmax())]
        if objective.largest:
            total, error = worst["each"], worst["each_stderr"]
        else:
            total = (part["each"] * part["weight"]).sum()
            error = (part["each_stderr"] * part["weight"]).sum(skipna=False)
        single = (part["each"].median(), worst["each"], worst["layer"])
        lines.append((step, total, error, *single))
    return pd.DataFrame(lines, columns=["step", "ratio", "stderr", "median", "largest", "layer"])


def sum_up(steps: pd.DataFrame, objective: Objective) -> Score:
    """Sum up a table of ``score_steps``: the mean over steps, its error from their spread, which
    has the noise of their batches and what differs between steps, or from their own errors where
    that is more (as by chance with few steps). Of the largest number, that and its own error. NaN
    for no step.
    """
    if steps.empty:
        return Score(nan, nan, 0)
    if objective.largest:
        row = steps.iloc[int(steps["ratio"].argmax())]
        return Score(float(row["ratio"]), float(row["stderr"]))
    values, errors = (steps[name].to_numpy(float) for name in ("ratio", "stderr"))
    own = np.linalg.norm(errors) / len(values)
    spread = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else nan
    return Score(float(values.mean()), float(np.fmax(spread, own)), len(values))
