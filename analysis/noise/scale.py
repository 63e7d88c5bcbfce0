"""The gradient noise scale, and the effective batch that an estimator leaves: rows in, tables
out.
"""

from typing import Any

import numpy as np
import pandas as pd

TOTAL = "all layers"
WHOLE, ALL = "all parameters", "all"  # the name of sums over parameters, the kind of all of them
BOTH = ["noise", "noise_stderr", "signal", "signal_stderr"]


def noise_scale(rows: pd.DataFrame, decay: float = 0.9) -> pd.DataFrame:
    """B_simple = tr Σ / ‖E g‖², in examples, of every layer and of ``TOTAL``, at every measured
    step of one run.

    Σ is the covariance of one example's gradient and E g the gradient over all N examples. From a
    minibatch of S with D² = ``minibatch_example`` and C = ``grad_sq``, both have unbiased
    estimates: ``noise`` = S D² for tr Σ and ``signal`` = C − (1 − S/N) D² for ‖E g‖². Their ratio
    is not unbiased, nor is an average of ratios, so each is averaged over the measured steps by
    itself: an exponential moving average that keeps ``decay`` of the past (0: none) and is not
    drawn to zero at the start. ``noise_scale`` is their ratio; NaN while the averaged signal is not
    positive.

    ``noise_scale_stderr`` is to first order in the errors of both, taken as independent of each
    other and from step to step. Where the signal is not above two of its standard errors,
    ``noise_scale_least`` is what B_simple is above, by the signal and two standard errors; NaN
    elsewhere. All errors are NaN where ``rows`` do not know those of one batch.

    ``TOTAL`` sums the layers that were measured, and no other parameters; its errors are the sums
    of theirs, as layers see the same examples: an upper bound. S may change between steps if the
    loss is a mean over examples. Raises ValueError for a decay outside [0, 1) and for rows of
    several runs.
    Source: McCandlish et al. 2018, https://arxiv.org/abs/1812.06162, section 2.2 and appendix A.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be 0 or more and less than 1, got {decay:g}")
    if len(runs := set(rows["run"])) > 1:
        raise ValueError(
            f"rows of {len(runs)} runs have no common moving average; give those of one"
        )
    table = read_both(rows.drop_duplicates(["layer", "step"]))
    total = table.groupby("step")[BOTH].sum(min_count=1)
    unknown = table[BOTH].isna().groupby(table["step"]).any()
    errors = [name for name in BOTH if name.endswith("_stderr")]
    total[errors] = total[errors].mask(unknown[errors])
    table = pd.concat([table, total.reset_index().assign(layer=TOTAL)], ignore_index=True)
    table = table.sort_values("step", kind="stable", ignore_index=True)
    for name in ("noise", "signal"):
        pair = [name, f"{name}_stderr"]
        for _, part in table.groupby("layer"):
            table.loc[part.index, pair] = smooth(part[pair].to_numpy(), decay)
    noise, signal = table["noise"], table["signal"].where(table["signal"] > 0)
    relative = (
        (table["noise_stderr"] / noise) ** 2 + (table["signal_stderr"] / signal) ** 2
    ) ** 0.5
    above = 2 * table["signal_stderr"]
    least = noise / (table["signal"].clip(lower=0) + above)
    scale = noise / signal
    return table.assign(
        noise_scale=scale,
        noise_scale_stderr=scale * relative,
        noise_scale_least=least.where(table["signal"] <= above),
    )


def read_both(once: pd.DataFrame) -> pd.DataFrame:
    """Noise and signal of every layer and step, with their errors where rows have them."""
    unknown = pd.Series(np.nan, once.index)
    left = 1 - (once["examples"] / once.get("population", unknown)).fillna(0.0)
    return once[["step", "layer"]].assign(
        noise=once["examples"] * once["minibatch_example"],
        noise_stderr=once["examples"] * once.get("minibatch_example_stderr", unknown),
        signal=once["grad_sq"] - left * once["minibatch_example"],
        signal_stderr=once.get("signal_stderr", unknown),
    )


def smooth(values: np.ndarray, decay: float) -> np.ndarray:
    """The exponential moving average of (value, standard error) pairs, independent of each other;
    a value that is NaN does not count.
    """
    found = np.full_like(values, np.nan)
    total = weight = square = 0.0
    for i, (value, error) in enumerate(values):
        if not np.isnan(value):
            total, weight = value + decay * total, 1 + decay * weight
            square = error**2 + (decay**2 * square if decay else 0.0)
        if weight:
            found[i] = total / weight, square**0.5 / weight
    return found


def batch_fraction(rows: pd.DataFrame) -> pd.DataFrame:
    """1 / (1 + ratio) of every layer and of ``TOTAL``, by step, estimator and rate: the effective
    batch fraction.

    A step with the estimator is as noisy as an exact one on this fraction of its batch. Minibatch
    and estimator are independent and the latter unbiased, so their variances add:
    Var · (1 + ratio), which a batch of S / (1 + ratio) examples has too. In ``TOTAL`` the ratio is
    that of the variances summed over layers. Of a biased estimator, whose error does not average
    out over steps, it says only how large that is.
    """
    keys, sums = ["step", "estimator", "rate"], ["variance", "minibatch_example"]
    total = rows.groupby(keys, sort=False)[sums].sum(min_count=1).reset_index().assign(layer=TOTAL)
    both = pd.concat(
        [rows, total.assign(ratio=total["variance"] / total["minibatch_example"])],
        ignore_index=True,
    )
    return both.assign(fraction=1 / (1 + both["ratio"]))[
        ["step", "layer", *keys[1:], "ratio", "fraction"]
    ]


def over_steps(ratio: Any, batches: float, steps: float) -> Any:
    """The ratio over ``steps`` consecutive steps of a shuffled epoch of ``batches``: r·M/(M − τ).

    At frozen weights the data noise of τ steps of one epoch sums to τ D² (M − τ)/M, as its batches
    share no example, an estimator's to τ times its variance; so over an epoch the data's noise
    vanishes and the estimator's is left. ``ratio`` is a number or a column.

    >>> over_steps(0.5, batches=100, steps=50)
    1.0

    Raises ValueError for steps beyond one epoch.
    """
    if not 0 <= steps < batches:
        raise ValueError(
            f"steps must be 0 or more and less than the {batches:g} batches of an epoch, got"
            f" {steps:g}; over whole epochs the data has no noise to compare with"
        )
    return ratio * batches / (batches - steps)
