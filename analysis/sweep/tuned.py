"""at_best_rates(): of runs at several learning rates, those at each method's own best."""

import pandas as pd

from sketchvar.analysis.sweep.outcome import METHOD, is_longer, select_final


def at_best_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the runs of every method at its own best learning rate: of each seed the run at the rate
    whose final validation loss is least on average over the method's *other* seeds.

    So no loss that is kept had a say in its own rate, as it would if the best of several were kept:
    the least of several losses is lower than what the rate gives. ``rows`` are those of a sweep,
    with ``factor`` times the task's learning rate; rates are compared on the seeds that were
    trained at all of a method's. A method with one rate, or with no other such seed, is kept at
    factor 1. Rows without the column, which older sweeps have, are at one rate, and at factor 1
    beside newer ones.
    """
    if "factor" not in rows:
        return rows
    rows = rows.fillna({"factor": 1.0})
    if rows["factor"].nunique() < 2:
        return rows
    kept: list[str] = []
    last = select_final(rows)
    for _, runs in last.assign(longer=is_longer(last)).groupby([*METHOD, "longer"], sort=False):
        losses = runs.pivot_table("validation", "factor", "seed")
        everywhere = losses.dropna(axis="columns")
        for seed, mine in runs.groupby("seed"):
            others = everywhere.drop(columns=seed, errors="ignore")
            best = 1.0 if others.empty else others.mean(axis="columns").idxmin()
            kept += list(mine.loc[mine["factor"] == best, "cell"])
    return rows[rows["cell"].isin(kept)].reset_index(drop=True)
