"""A prediction of what forks end at that joins both sides: noise, and what steps gain against
it.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from sketchvar.analysis.cost.table import EDGE
from sketchvar.analysis.noise.cost import Draws
from sketchvar.analysis.noise.draw import ENOUGH, MEAN, MINIBATCH, NOT_ONE
from sketchvar.analysis.noise.horizon import Dynamics

FACTORS = tuple(2.0 ** np.arange(-6, 4.1, 0.5))  # of the learning rate
LOG_FACTORS = np.log2(FACTORS)
FRACTIONS = tuple(2.0 ** -np.arange(0, 7.01, 0.25))  # of the batch
KEYS = ["noise", "rate"]
HALVES = ("gained", "held")


def joined(draws: Draws, dynamics: Dynamics, horizon: float, tuned: bool = True) -> pd.DataFrame:
    """The effective batch of every noise after ``horizon`` steps, with a standard error by leaving
    out one draw at a time: the fraction f of the batch on which exact training ends at its loss.

    In the quadratic around the weights a training ends at

        loss − G_T(λ) + N_T(λ),    G_T = Σ gained(x) s,   N_T = Σ held(x) n

    s and n the powers of gradient and noise along curvatures x, λ a factor of the learning rate.
    The noise on a fraction f is the minibatch's over f, an estimator's is the minibatch's and its
    own. ``tuned``: each ends at its best λ. Else λ is by how much the optimizer shortens its steps,
    seeing that noise (``measure_progress``). The power of the gradient is that of the mean over all
    draws less what is left in it of the noise.
    """
    own = draws.spectra[draws.spectra["seeds"] == "own"]
    at = [replaced(dynamics, factor, horizon) for factor in FACTORS]
    parts = {what: [of_draws(own, each, what, horizon) for each in at] for what in HALVES}
    names = list(parts["held"][0].index)
    place = {name: i for i, (name, _) in enumerate(names)}
    tables = {what: np.stack([part.to_numpy() for part in parts[what]]) for what in HALVES}
    brakes = [brake(draws.progress, name, horizon) for name in names]
    count = tables["held"].shape[-1]
    gradients = (draws.totals["noise"] == MINIBATCH).sum()  # pairs of them, that MEAN is of
    left_out = [np.arange(count), *(np.delete(np.arange(count), i) for i in range(count))]
    found = []
    for kept in left_out if count > 1 else left_out[:1]:
        gained, held = (tables[what][..., kept].mean(-1) for what in HALVES)
        left = gained[:, place[MINIBATCH]] / (2 * gradients)
        gain, noise = gained[:, place[MEAN]] - left, held[:, place[MINIBATCH]]

        def end(noise: np.ndarray, factor: float, gain: np.ndarray = gain) -> float:
            lost = noise - gain
            return float(lost.min() if tuned else np.interp(np.log2(factor), LOG_FACTORS, lost))

        exact = [end(noise / f, brakes[place[MINIBATCH]](f)) for f in FRACTIONS]
        ends = [end(noise + held[:, i], brakes[i](1.0)) for i in range(len(names))]
        rising = np.maximum.accumulate(exact)
        found.append(np.exp2(np.interp(ends, rising, np.log2(FRACTIONS))))
    whole, others = found[0], np.array(found[1:])
    error = ((count - 1) ** 2 / count) ** 0.5 * others.std(0, ddof=1) if count >= ENOUGH else np.nan
    table = pd.DataFrame(names, columns=["estimator", "rate"])
    table = table.assign(by_both=whole, by_both_stderr=error)
    return table[~table["estimator"].isin(NOT_ONE)].reset_index(drop=True)


def brake(
    progress: pd.DataFrame, name: tuple[str, float], horizon: float
) -> Callable[[float], float]:
    """By which factor steps are shortened over a horizon, in the mean, on a fraction of the batch;
    1 where nothing was measured.
    """
    if progress.empty or name[0] not in set(progress["noise"]):
        return lambda fraction: 1.0
    mine = progress[(progress["noise"] == name[0]) & (progress["rate"] == name[1])]
    later = mine.pivot_table("progress", "fraction", "after").sort_index(ascending=False)
    times = np.log2(np.arange(1, min(int(horizon), 2**12) + 1))
    means = [np.interp(times, np.log2(later.columns), row).mean() for row in later.to_numpy()]
    noises = -np.log2(later.index.to_numpy())
    return lambda fraction: float(np.interp(-np.log2(fraction), noises, means))


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
