"""The gradient noise scale, and the effective batch that an estimator leaves: rows in, tables
out.
"""

import pandas as pd

TOTAL = "all layers"


def noise_scale(rows: pd.DataFrame, decay: float = 0.9) -> pd.DataFrame:
    """B_simple = tr Σ / ‖E g‖², in examples, of every layer and of ``TOTAL``, at every measured
    step of one run.

    Σ is the covariance of one example's gradient and E g the gradient over all data. From a
    minibatch of S examples with D² = ``minibatch_example`` and C = ``grad_sq``, both have unbiased
    estimates: ``noise`` = S D² for tr Σ and ``signal`` = C − D² for ‖E g‖², the ones of batch sizes
    1 and S. Their ratio is not unbiased, nor is an average of ratios, so each is averaged over the
    measured steps by itself: an exponential moving average that keeps ``decay`` of the past (0:
    none) and is not drawn to zero at the start. ``noise_scale`` is their ratio; NaN while the
    averaged signal is not positive, where more steps or larger batches are needed to see the
    gradient through its noise.

    ``TOTAL`` sums the layers that were measured, and no other parameters. S may change between
    steps if the loss is a mean over examples. Raises ValueError for a decay outside [0, 1) and for
    rows of several runs.
    Source: McCandlish et al. 2018, https://arxiv.org/abs/1812.06162, section 2.2 and appendix A.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be 0 or more and less than 1, got {decay:g}")
    if len(runs := set(rows["run"])) > 1:
        raise ValueError(
            f"rows of {len(runs)} runs have no common moving average; give those of one"
        )
    once = rows.drop_duplicates(["layer", "step"])
    noise, signal = (
        once["examples"] * once["minibatch_example"],
        once["grad_sq"] - once["minibatch_example"],
    )
    table = once[["step", "layer"]].assign(noise=noise, signal=signal)
    total = (
        table.groupby("step")[["noise", "signal"]]
        .sum(min_count=1)
        .reset_index()
        .assign(layer=TOTAL)
    )
    table = pd.concat([table, total], ignore_index=True).sort_values(
        "step", kind="stable", ignore_index=True
    )
    for name in ("noise", "signal"):
        steps = table.groupby("layer")[name]
        table[name] = steps.transform(lambda each: each.ewm(alpha=1 - decay, ignore_na=True).mean())
    return table.assign(noise_scale=table["noise"] / table["signal"].where(table["signal"] > 0))


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
