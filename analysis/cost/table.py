"""Tables of what noise costs, from its draws: ratios to the minibatch, by layer, and coherence."""

import numpy as np
import pandas as pd

from sketchvar.analysis.noise.cost import LINEAR, MINIBATCH

KEYS = ["noise", "rate", "seeds"]
ENOUGH = 4  # draws below which a standard error says nothing
RATIOS = {"variance": "variance_ratio", "metric": "metric_ratio", "cost": "cost_ratio"}


def ratios(draws: pd.DataFrame) -> pd.DataFrame:
    """Variance, metric and cost of every estimator's noise over those of the minibatch's, with
    standard errors: a row per estimator, rate and horizon. NaN errors for fewer than ``ENOUGH``
    draws.

    ``negative`` and ``unstable`` are the shares of the noise, in the metric, along directions in
    which the loss curves down, or so steeply up that steps would diverge; NaN for one step.

    Ratios of means. Numerator and denominator are drawn on some of the same batches, which makes
    their ratio a little more certain than is said.
    """
    own = draws[draws["seeds"] == "own"]
    lines = []
    for horizon, part in own.groupby("horizon", sort=True):
        minibatch = part[part["noise"] == MINIBATCH]
        for (name, rate), each in part.groupby(["noise", "rate"], sort=False):
            if name not in (MINIBATCH, LINEAR):
                lines.append(
                    {"estimator": name, "rate": rate, "horizon": horizon}
                    | over(each, minibatch)
                    | {"draws": len(each)}
                    | {odd: each[odd].mean() for odd in ("negative", "unstable")}
                )
    return pd.DataFrame(lines)


def by_layer(layers: pd.DataFrame) -> pd.DataFrame:
    """The same of every linear layer by itself, over one step: its own noise over the minibatch's
    in its weight. ``cost`` and ``minibatch_cost`` are in units of the loss.
    """
    own = layers[(layers["seeds"] == "own") & (layers["noise"] != LINEAR)]
    lines = []
    for layer, part in own.groupby("layer", sort=False):
        minibatch = part[part["noise"] == MINIBATCH]
        for (name, rate), each in part.groupby(["noise", "rate"], sort=False):
            if name != MINIBATCH:
                cost, error = mean(each["cost"])
                lines.append(
                    {"layer": layer, "estimator": name, "rate": rate}
                    | over(each, minibatch)
                    | {"cost": cost, "cost_stderr": error}
                    | {"minibatch_cost": mean(minibatch["cost"])[0], "draws": len(each)}
                )
    return pd.DataFrame(lines)


def coherence(draws: pd.DataFrame) -> pd.DataFrame:
    """How much of each noise's one-step cost is there because tensors of weights err together: a
    row per noise and kind of seeds, the minibatch's and that of its linear weights among them.

    ``coherence`` = 1 − ``apart``/``cost``, paired by draw; the ratios are to the minibatch's.
    """
    one = draws[draws["horizon"] == 1]
    minibatch = one[one["noise"] == MINIBATCH]
    lines = []
    for key, each in one[one["apart"].notna()].groupby(KEYS, sort=False):
        left, error = quotient(each["apart"], each["cost"], paired=True)
        lines.append(
            dict(zip(KEYS, key, strict=True))
            | over(each, minibatch)
            | {"coherence": 1 - left, "coherence_stderr": error, "draws": len(each)}
        )
    return pd.DataFrame(lines)


def over(each: pd.DataFrame, minibatch: pd.DataFrame) -> dict[str, float]:
    """The three ratios of one noise's draws to the minibatch's, with errors."""
    found = {}
    for name, ratio in RATIOS.items():
        found[ratio], found[f"{ratio}_stderr"] = quotient(each[name], minibatch[name])
    return found


def mean(values: pd.Series) -> tuple[float, float]:
    """Mean and standard error of what is not NaN."""
    known = values.dropna().to_numpy(dtype=float)
    if len(known) == 0:
        return np.nan, np.nan
    if np.isinf(known).any():
        return np.inf, np.nan
    error = known.std(ddof=1) / len(known) ** 0.5 if len(known) >= ENOUGH else np.nan
    return float(known.mean()), float(error)


def quotient(above: pd.Series, below: pd.Series, paired: bool = False) -> tuple[float, float]:
    """Mean of ``above`` over mean of ``below``, and its standard error to first order: of
    independent draws, or of ``paired`` ones.
    """
    (a, error_a), (b, error_b) = mean(above), mean(below)
    if not b or not np.isfinite(b):
        return np.nan, np.nan
    ratio = a / b
    if paired:
        rest = pd.Series(above.to_numpy() - ratio * below.to_numpy())
        return ratio, mean(rest)[1] / abs(b)
    return ratio, float(np.hypot(error_a, ratio * error_b) / abs(b))
