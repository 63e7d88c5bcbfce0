"""The integer programme that chooses one candidate per layer within a budget."""

from bisect import bisect_left
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from sketchvar.analysis.plan.totals import CHOICE, COPY, sum_inputs, sum_layers

# HiGHS holds a constraint to 1e-6 in its own unit: with this, to 1e-9 of X's bytes or of the ratio
SCALE = 1e3


def minimize_noise(table: pd.DataFrame, fraction: float, largest: bool = False) -> pd.DataFrame:
    """Choose rows of ``list_candidates``, one per layer, of least total noise within ``fraction``
    of the bytes of X. ``largest``: of the least largest noise of a layer, and of those of the least
    total.

    The total does not depend on what is shared: variances add over layers, whose gradients are
    different entries.
    Raises ValueError for a fraction outside (0, 1] and for one below the least possible, which it
    says.
    """
    if not 0 < fraction <= 1:
        raise ValueError(
            f"a memory budget is a fraction of X's bytes, 0 to 1, got {fraction:g}; write 0.25 for"
            " 25 %"
        )
    table = drop_dominated(table)
    if largest:
        table = keep_quietest(table, fraction)
    noise, memory = weigh(table)
    found = solve(table, noise, memory, fraction)
    if found is None:
        least = find_least(table)
        raise ValueError(
            f"no plan keeps at most {fraction:g} of X's bytes; the least possible is"
            f" {np.ceil(1e4 * least) / 1e4:g}: allow as much, or measure smaller rates or fewer"
            " bits"
        )
    return found


def minimize_bytes(table: pd.DataFrame, ratio: float, largest: bool = False) -> pd.DataFrame:
    """Choose rows of ``list_candidates``, one per layer, of least kept bytes within this total
    noise, or ``largest`` noise of a layer; of those the least noisy.

    Raises ValueError for a ratio that is negative or not finite.
    """
    if not 0 <= ratio < np.inf:
        raise ValueError(
            f"a noise budget is a ratio to the minibatch variance, 0 or more, got {ratio:g};"
            " write 0.1"
        )
    table = drop_dominated(table[table["noise"] <= ratio] if largest else table)
    noise, memory = weigh(table)
    found: Any = solve(table, memory, memory if largest else noise, 1.0 if largest else ratio)
    return minimize_noise(table, min(sum_layers(found).fraction, 1.0))  # exact fits any


def keep_quietest(table: pd.DataFrame, fraction: float) -> pd.DataFrame:
    """Keep the rows up to the least noise at which a plan fits into ``fraction`` of the bytes; all
    of them where none fits.
    """
    levels = sorted(set(table["noise"]))

    def fits(level: float) -> bool:
        return find_least(table[table["noise"] <= level]) <= fraction

    place = bisect_left(levels, True, key=fits)
    return table[table["noise"] <= levels[min(place, len(levels) - 1)]]


def find_least(table: pd.DataFrame) -> float:
    """Find the least fraction of the bytes of X that a plan can keep."""
    memory = weigh(table)[1]
    found: Any = solve(table, memory, memory, 1.0)  # exact fits
    return sum_layers(found).fraction


def drop_dominated(table: pd.DataFrame) -> pd.DataFrame:
    """Drop the rows that no plan needs, which are most of them: among the layers that read one
    input, a choice that has no fewer bytes and no less noise in any layer than another one.
    """
    kept = []
    for _, group in table.groupby("input_of", sort=False):
        costs = group.pivot_table(index=CHOICE, columns="layer", values="noise", sort=False)
        costs = costs.assign(kept_bytes=group.groupby(CHOICE)["kept_bytes"].max())
        cost, order = costs.to_numpy(), np.arange(len(costs))
        # row by column; NaN, where a layer does not have the choice, is more
        no_more = (cost[:, None] <= cost[None]).all(-1)
        equal = no_more & no_more.T
        beaten: Any = (no_more & (~equal | (order[:, None] < order[None]))).any(0)
        kept.append(group[pd.MultiIndex.from_frame(group[CHOICE]).isin(list(costs[~beaten].index))])
    return pd.concat(kept)


def weigh(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Weigh what each variable adds to the total noise and to the fraction of bytes: a variable for
    each row of the table, 1 if it is chosen, then one for each copy, 1 if it is kept.
    """
    copies = table.groupby(COPY, sort=False)["kept_bytes"].max().to_numpy()
    noise = np.concatenate([table["noise"], np.zeros(len(copies))])
    return noise, np.concatenate([np.zeros(len(table)), copies / sum_inputs(table)])


def solve(
    table: pd.DataFrame, least: np.ndarray, limited: np.ndarray, limit: float
) -> pd.DataFrame | None:
    """Solve for the choice of one row per layer of least Σ ``least`` with Σ ``limited`` ≤
    ``limit``; None where there is none.

    An integer programme: a chosen row needs its copy.
    """
    n, size = len(table), len(least)
    chosen, each = np.arange(n), np.ones(n)
    layer, copy = (
        pd.factorize(table["layer"])[0],
        table.groupby(COPY, sort=False).ngroup().to_numpy(),
    )
    one = csr_array((each, (layer, chosen)), (layer.max() + 1, size))
    needs = csr_array(
        (np.r_[each, -each], (np.r_[chosen, chosen], np.r_[chosen, n + copy])), (n, size)
    )
    found = milp(
        SCALE * least,
        integrality=np.arange(size) < n,
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one, 1, 1),
            LinearConstraint(needs, -np.inf, 0),
            LinearConstraint(SCALE * limited[None], -np.inf, SCALE * limit),
        ],
        options={"mip_rel_gap": 0, "presolve": False},  # presolve saves no time, and prints
    )
    return None if found.x is None else table[found.x[:n] > 0.5].sort_index()
