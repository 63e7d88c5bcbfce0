"""The effective batch: which batch of exact training ends where an estimator does, beside what was
predicted.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import isotonic_regression

from sketchvar.analysis.cost.measure import Costs
from sketchvar.analysis.cost.predict import joined

EXACT = "exact"
METHOD = ["estimator", "rate", "fraction"]
DRAWS = 1000  # of the bootstrap
PREDICTIONS = ("variance", "metric", "cost")


def best_factors(rows: pd.DataFrame) -> dict[tuple[str, float, float], float]:
    """The learning rate factor of the least mean loss over the tuning forks, of every method."""
    tuned = rows[rows["tuning"].astype(bool)].groupby([*METHOD, "factor"])["loss"].mean()
    least = tuned.reset_index().sort_values("loss", kind="stable").drop_duplicates(METHOD)
    keys = least[METHOD].itertuples(index=False, name=None)
    return dict(zip(keys, least["factor"].astype(float), strict=True))


def effective_batches(rows: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """A row per method, twice: at its own best learning rate (``tuned``) and at the common one.

    ``loss`` is the mean over forks, ``behind`` its paired difference to exact training on the whole
    batch, both with standard errors. ``effective`` is the fraction of the batch with which exact
    training (its loss made to rise with 1/fraction, in which the cost of noise is linear, and drawn
    straight between the fractions that were run) ends at that loss; from the smallest fraction to
    1, beyond which is not ``inside``. ``low`` and ``high`` hold it with probability ``level``, by
    ``DRAWS`` bootstrap draws of forks, the same of all methods.
    """
    best = best_factors(rows)
    told = rows[~rows["tuning"].astype(bool)]
    parts = []
    for tuned in (True, False):
        at = told[METHOD].apply(tuple, axis=1).map(best) if tuned else 1.0
        losses = told[told["factor"] == at].pivot_table("loss", "fork", METHOD, sort=False)
        parts.append(of_losses(losses, level).assign(tuned=tuned))
    table = pd.concat(parts, ignore_index=True)
    factors = [best[key] for key in table[METHOD].itertuples(index=False, name=None)]
    return table.assign(factor=np.where(table["tuned"], factors, 1.0))


def of_losses(losses: pd.DataFrame, level: float) -> pd.DataFrame:
    """The same from losses by fork (a row each) and method (a column each)."""
    values = losses.dropna().to_numpy()
    values = np.minimum(values, 10 * values[np.isfinite(values)].max(initial=1.0))  # diverged
    n = len(values)
    methods: list[Any] = list(losses.columns)
    exact = [i for i, (name, _, _) in enumerate(methods) if name == EXACT]
    fractions = np.array([methods[i][2] for i in exact])
    whole = exact[int(fractions.argmax())]
    rng = np.random.default_rng(0)
    samples = [np.arange(n), *rng.integers(n, size=(DRAWS, n))]
    found = np.array(
        [read_off(values[s].mean(0)[exact], fractions, values[s].mean(0)) for s in samples]
    )
    ends = np.quantile(found[1:], [(1 - level) / 2, (1 + level) / 2], axis=0)
    behind = values - values[:, [whole]]
    return pd.DataFrame(methods, columns=METHOD).assign(
        forks=n,
        loss=values.mean(0),
        loss_stderr=values.std(0, ddof=1) / n**0.5,
        behind=behind.mean(0),
        behind_stderr=behind.std(0, ddof=1) / n**0.5,
        effective=found[0],
        low=ends[0],
        high=ends[1],
        inside=(found[0] > fractions.min()) & (found[0] < fractions.max()),
    )


def read_off(exact: np.ndarray, fractions: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The fraction at which exact training has each of these losses."""
    noise = 1 / fractions
    order = noise.argsort()
    rising = isotonic_regression(exact[order]).x
    # where it is level every fraction serves: the largest is taken
    rising, first = np.unique(rising, return_index=True)
    return 1 / np.interp(losses, rising, noise[order][first])


def beside(effective: pd.DataFrame, costs: Costs, horizon: float) -> pd.DataFrame:
    """What forks of ``horizon`` steps ended at beside what was predicted of each estimator; NaN of
    exact ones.

    Three predictions are 1/(1 + ratio): of ``variance``, of the ``metric``, and of ``cost`` over
    that horizon at the learning rate of exact training, its best one beside methods at their own
    best. ``both`` joins noise and progress (``joined``).
    ``off_…`` is predicted − read off, in units of the interval's half width on that side: within ±1
    where the prediction lies in it; NaN where the loss is outside the range of the exact ones.
    """
    parts = []
    for tuned, part in effective.groupby("tuned", sort=False):
        exact = part[(part["estimator"] == EXACT) & (part["fraction"] == 1)]
        factor = exact["factor"].item()
        rates = [factor * costs.dynamics.rate(step) for step in range(int(horizon))]
        known = costs.over([horizon], rates)
        both = joined(costs.draws, costs.dynamics, horizon, bool(tuned))
        known = known[known["estimator"] != EXACT].merge(both, on=["estimator", "rate"])
        parts.append(part.merge(known, "left", on=["estimator", "rate"]))
    table = pd.concat(parts, ignore_index=True)
    for name in PREDICTIONS:
        table[f"by_{name}"] = 1 / (1 + table[f"{name}_ratio"])
    for name in (*PREDICTIONS, "both"):
        above = table[f"by_{name}"] > table["effective"]
        side = (table["high"] - table["effective"]).where(above, table["effective"] - table["low"])
        off = (table[f"by_{name}"] - table["effective"]) / side.clip(lower=1e-9)
        table[f"off_{name}"] = off.where(table["inside"])
    return table


def judge(effective: pd.DataFrame) -> pd.DataFrame:
    """How each prediction did, over the methods at their own best learning rate whose loss is in
    the range of exact ones: a row per prediction.

    ``within`` counts those in the interval of what was read off; ``octaves`` is the mean of
    log₂(predicted / read off), ``spread`` its root mean square; ``rank`` Spearman's correlation,
    nan of fewer than three methods, or where all are alike.
    ``p`` is the probability of deviations as large or larger were the prediction true, by χ² of
    them over the standard errors of both, forks and prediction: as if methods erred independently,
    which those that share batches do not.
    """
    rows = effective[effective["tuned"].astype(bool) & (effective["estimator"] != EXACT)]
    rows = rows[rows["inside"].astype(bool)]
    lines = []
    for name in (*PREDICTIONS, "both"):
        known = rows[rows[f"by_{name}"].notna()]
        guess, found = known[f"by_{name}"], known["effective"]
        ordered = len(known) > 2 and min(guess.nunique(), found.nunique()) > 1
        octaves = np.log2(guess / found)
        if name == "both":
            error = known["by_both_stderr"].fillna(0.0)
        else:
            error = guess**2 * known[f"{name}_ratio_stderr"].fillna(0.0)
        width = known[f"off_{name}"] / (guess - found)  # one over the half width on that side
        read = 1 / (1.96 * width)
        z_sq = ((guess - found) ** 2 / (error**2 + read**2)).sum()
        lines.append(
            {
                "prediction": name,
                "methods": len(known),
                "within": int((known[f"off_{name}"].abs() <= 1).sum()),
                "octaves": octaves.mean(),
                "spread": (octaves**2).mean() ** 0.5,
                "rank": stats.spearmanr(guess, found)[0] if ordered else np.nan,
                "p": stats.chi2.sf(z_sq, len(known)) if len(known) else np.nan,
            }
        )
    return pd.DataFrame(lines)
