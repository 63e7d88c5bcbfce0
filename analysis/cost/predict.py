"""A prediction of what forks end at that joins both sides: noise, and what steps gain against
it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from sketchvar.analysis.cost.table import EDGE, ENOUGH
from sketchvar.analysis.noise.cost import LINEAR, MEAN, MINIBATCH, OFTEN
from sketchvar.analysis.noise.horizon import Dynamics

FACTORS = tuple(2.0 ** np.arange(-6, 4.1, 0.5))  # of the learning rate
FRACTIONS = tuple(2.0 ** -np.arange(0, 7.01, 0.25))  # of the batch
KEYS = ["noise", "rate"]
HALVES = ("gained", "held")


def joined(
    spectra: pd.DataFrame,
    dynamics: Dynamics,
    horizon: float,
    factors: Sequence[float] = FACTORS,
) -> pd.DataFrame:
    """The effective batch of every noise after ``horizon`` steps, each method at its own best of
    ``factors`` times the learning rate: with a standard error, by leaving out one draw at a time.

    In the quadratic around the weights a training ends at

        loss − G_T(λ) + N_T(λ),    G_T = Σ gained(x) s,   N_T = Σ held(x) n

    λ the factor, s and n the powers of gradient and noise along curvatures x. The noise of a batch
    of a fraction f is the minibatch's over f, an estimator's is the minibatch's and its own. The
    effective batch is the f that ends, at its best λ, where the estimator does at its. The power of
    the gradient is that of the mean over all draws less what is left in it of the noise.
    """
    own = spectra[spectra["seeds"] == "own"]
    at = [replaced(dynamics, factor, horizon) for factor in factors]
    parts = {what: [of_draws(own, each, what, horizon) for each in at] for what in HALVES}
    names = list(parts["held"][0].index)
    place = {name: i for i, (name, _) in enumerate(names)}
    tables = {what: np.stack([part.to_numpy() for part in parts[what]]) for what in HALVES}
    draws = tables["held"].shape[-1]
    left_out = [np.arange(draws), *(np.delete(np.arange(draws), i) for i in range(draws))]
    found = []
    for kept in left_out if draws > 1 else left_out[:1]:
        gained, held = (tables[what][..., kept].mean(-1) for what in HALVES)
        left = gained[:, place[MINIBATCH]] / (2 * OFTEN * draws)
        gain = gained[:, place[MEAN]] - left
        noise = held[:, place[MINIBATCH]]
        exact = np.array([(noise / f - gain).min() for f in FRACTIONS])
        ends = [(noise + held[:, i] - gain).min() for i in range(len(names))]
        found.append(np.exp2(np.interp(ends, exact, np.log2(FRACTIONS))))
    whole, others = found[0], np.array(found[1:])
    error = ((draws - 1) ** 2 / draws) ** 0.5 * others.std(0, ddof=1) if draws >= ENOUGH else np.nan
    table = pd.DataFrame(names, columns=["estimator", "rate"])
    table = table.assign(by_both=whole, by_both_stderr=error)
    return table[~table["estimator"].isin([MINIBATCH, LINEAR, MEAN])].reset_index(drop=True)


def replaced(dynamics: Dynamics, factor: float, horizon: float) -> Dynamics:
    """The dynamics at ``factor`` times the learning rates of the steps to come."""
    return replace(
        dynamics, schedule=tuple(factor * dynamics.rate(step) for step in range(int(horizon)))
    )


def of_draws(own: pd.DataFrame, dynamics: Dynamics, what: str, horizon: float) -> pd.DataFrame:
    """Σ over the spectrum of what is gained or held, of every noise (rows) and draw (columns)."""
    node = np.minimum(own["node"].to_numpy(), EDGE * dynamics.edge)
    value = own["weight"] * getattr(dynamics, what)(node, horizon)
    return own.assign(value=value).pivot_table("value", KEYS, "draw", aggfunc="sum")
