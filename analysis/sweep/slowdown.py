"""The slowdown of a training: in how many updates exact training comes as far."""

import numpy as np
import pandas as pd


def slow_down(curve: pd.Series, loss: float) -> float:
    """How many times fewer updates exact training needs to a final ``loss``: its ``curve`` is the
    validation loss by step, to the last of which the loss was trained.

    By straight lines between the evaluated steps. 1 where exact training has not gone so far, as it
    was trained for no longer: at most that.
    """
    steps = count_steps(curve, loss)
    if np.isnan(steps):
        return 1.0 if loss == loss else np.nan
    return float(curve.index[-1] / steps) if steps else np.inf


def find_target(rows: pd.DataFrame) -> float:
    """Find a validation loss that every run reaches: the greatest over runs of the least loss in a
    run.
    """
    return float(rows.groupby("cell")["validation"].min().max())


def count_steps(curve: pd.Series, loss: float) -> float:
    """Count the updates after which a curve (validation loss by step) first is at most ``loss``, by
    straight lines; NaN if never.
    """
    curve = curve.sort_index()
    steps, losses = curve.index.to_numpy(float), curve.to_numpy(float)
    below = np.flatnonzero(losses <= loss)
    if not len(below):
        return float("nan")
    i = int(below[0])
    if i == 0:
        return float(steps[0])
    share = (losses[i - 1] - loss) / (losses[i - 1] - losses[i])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))
