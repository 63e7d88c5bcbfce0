"""Plan: which estimator at which rate for which layer, for a memory budget or a noise budget."""

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from sketchvar.analysis import records
from sketchvar.estimators import Estimator, Exact, parse, spell

CHOICE = ["estimator", "rate"]
COPY = ["input_of", *CHOICE]  # layers that have all three alike share one compressed copy
# HiGHS holds a constraint to 1e-6 in its own unit: with this, to 1e-9 of X's bytes or of the ratio
SCALE = 1e3


@dataclass(frozen=True)
class Totals:
    """Of all layers together: bytes kept, their fraction of what exact training keeps of the
    layers' inputs, and the ratio Σ variance / Σ minibatch variance (unit: example).
    """

    kept_bytes: float
    fraction: float
    ratio: float

    @property
    def batch_fraction(self) -> float:
        """The effective batch fraction: a step is as noisy as an exact one on this fraction of its
        batch.
        """
        return 1 / (1 + self.ratio)


def candidates(rows: pd.DataFrame, dtype: torch.dtype, exact: Collection[str] = ()) -> pd.DataFrame:
    """What each layer can take, a row each: layer, input_of, estimator, rate, kept_bytes, x_bytes,
    variance, minibatch.

    ``rows`` are those of one run (``compare.COLUMNS``), X kept in ``dtype``. All numbers are means
    over their steps, so that a ratio is one of averages. Beside ``exact``, which keeps all of X, it
    has what is unbiased, no oracle, and smaller than X. ``exact``: patterns of layers that stay
    exact. Rows without ``input_of`` share nothing. In a convolution X is the matrix of patches,
    which is larger than the image that exact training keeps.

    Raises ValueError for a variance that is not finite, a pattern that names no layer, and where no
    candidate is left.
    """
    layers = list(dict.fromkeys(rows["layer"]))
    for pattern in exact:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise ValueError(
                f"{pattern!r} matches no layer; the measured ones are {', '.join(layers)}"
            )
    # a layer trains with what needs X only, and whose error averages out over steps
    rows = rows[~rows["oracle"] & ~rows["biased"] & (rows["estimator"] != "exact")]
    if rows.empty:
        raise ValueError(
            "no row is of an unbiased estimator that a layer can use; measure some, as in run"
            " --estimators countsketch"
        )
    check_finite(rows)
    sizes = zip(rows["rows"], rows["p"], strict=True)
    first = rows["input_of"].fillna(rows["layer"]) if "input_of" in rows else rows["layer"]
    whole = [Exact().kept_bytes(int(n), int(p), dtype) for n, p in sizes]
    choices = rows.assign(input_of=first, x_bytes=whole).groupby(["layer", *CHOICE], sort=False)
    table = choices.agg(
        input_of=("input_of", "first"),
        kept_bytes=("kept_bytes", "mean"),
        x_bytes=("x_bytes", "mean"),
        variance=("variance", "mean"),
        minibatch=("minibatch_example", "mean"),
    ).reset_index()
    plain = table.drop_duplicates("layer").assign(estimator="exact", rate=1.0, variance=0.0)
    stays = (
        table["layer"]
        .map(lambda layer: any(fnmatchcase(layer, pattern) for pattern in exact))
        .astype(bool)
    )
    smaller = table[
        (table["kept_bytes"] < table["x_bytes"]) & ~stays
    ]  # a layer that would keep as much runs exactly
    table = pd.concat([plain.assign(kept_bytes=plain["x_bytes"]), smaller], ignore_index=True)
    return table.sort_values(
        "layer", key=lambda names: names.map(layers.index), kind="stable", ignore_index=True
    )


def check_finite(rows: pd.DataFrame) -> None:
    """Raise ValueError, naming the first, for a variance or minibatch variance that is not
    finite.
    """
    for column, what in (
        ("minibatch_example", "no minibatch variance by example"),
        ("variance", "no finite variance"),
    ):
        wrong = rows[~np.isfinite(rows[column])]
        if len(wrong):
            row = wrong.iloc[0]
            of = "" if column == "minibatch_example" else f" of {row['estimator']}"
            remedy = (
                "measure by example, 2 or more"
                if column == "minibatch_example"
                else "measure without it"
            )
            raise ValueError(f"{row['layer']} has {what}{of} at step {row['step']}; {remedy}")
    if not rows["minibatch_example"].sum() > 0:
        raise ValueError(
            "the minibatch variance is 0 in all layers; measure a step whose gradient is not 0"
        )


def totals(chosen: pd.DataFrame) -> Totals:
    """Of a table with one row per layer; a copy that several layers share counts once, at the
    largest of its sizes.
    """
    once = chosen.drop_duplicates("layer")
    kept = float(chosen.groupby(COPY)["kept_bytes"].max().sum())
    return Totals(
        kept, kept / inputs(chosen), float(once["variance"].sum() / once["minibatch"].sum())
    )


def inputs(table: pd.DataFrame) -> float:
    """Bytes that exact training keeps of the layers' inputs, each input once."""
    return float(table.groupby("input_of")["x_bytes"].max().sum())


def least_noise(table: pd.DataFrame, fraction: float) -> pd.DataFrame:
    """The rows of ``candidates``, one per layer, of least total ratio within ``fraction`` of the
    bytes of X.

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
    table = undominated(table)
    noise, memory = weights(table)
    found = solved(table, noise, memory, fraction)
    if found is None:
        least = totals(solved(table, memory, memory, 1.0)).fraction  # type: ignore[arg-type]  # exact fits
        raise ValueError(
            f"no plan keeps at most {fraction:g} of X's bytes; the least possible is"
            f" {np.ceil(1e4 * least) / 1e4:g}: allow as much, or measure smaller rates or fewer"
            " bits"
        )
    return found


def least_bytes(table: pd.DataFrame, ratio: float) -> pd.DataFrame:
    """The rows of ``candidates``, one per layer, of least kept bytes within this total ratio; of
    those the least noisy.

    Raises ValueError for a ratio that is negative or not finite.
    """
    if not 0 <= ratio < np.inf:
        raise ValueError(
            f"a noise budget is a ratio to the minibatch variance, 0 or more, got {ratio:g};"
            " write 0.1"
        )
    table = undominated(table)
    noise, memory = weights(table)
    found: Any = solved(table, memory, noise, ratio)  # exact fits any
    return least_noise(table, min(totals(found).fraction, 1.0))


def undominated(table: pd.DataFrame) -> pd.DataFrame:
    """Without the rows that no plan needs: among the layers that read one input, a choice that
    another one matches in bytes and in the variance of every layer. Most are, and the programme is
    so much smaller.
    """
    kept = []
    for _, group in table.groupby("input_of", sort=False):
        costs = group.pivot_table(index=CHOICE, columns="layer", values="variance", sort=False)
        costs = costs.assign(kept_bytes=group.groupby(CHOICE)["kept_bytes"].max())
        cost, order = costs.to_numpy(), np.arange(len(costs))
        no_more = (cost[:, None] <= cost[None]).all(
            -1
        )  # row by column: NaN, where a layer has not the choice, is more
        equal = no_more & no_more.T
        beaten: Any = (no_more & (~equal | (order[:, None] < order[None]))).any(0)
        kept.append(group[pd.MultiIndex.from_frame(group[CHOICE]).isin(list(costs[~beaten].index))])
    return pd.concat(kept)


def weights(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """What each variable adds to the total ratio and to the fraction of bytes: a variable for each
    row of the table, 1 if it is chosen, then one for each copy, 1 if it is kept.
    """
    copies = table.groupby(COPY, sort=False)["kept_bytes"].max().to_numpy()
    minibatch = table.drop_duplicates("layer")["minibatch"].sum()
    noise = np.concatenate([table["variance"] / minibatch, np.zeros(len(copies))])
    return noise, np.concatenate([np.zeros(len(table)), copies / inputs(table)])


def solved(
    table: pd.DataFrame, least: np.ndarray, limited: np.ndarray, limit: float
) -> pd.DataFrame | None:
    """The choice of one row per layer of least Σ ``least`` with Σ ``limited`` ≤ ``limit``; None
    where there is none.

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
        options={
            "mip_rel_gap": 0,
            "presolve": False,
        },  # which saves no time here, and prints to stdout
    )
    return None if found.x is None else table[found.x[:n] > 0.5].sort_index()


def save_plan(path: Path, chosen: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write layer -> spelling, the totals, and what ``about`` says of the budget and the run, as
    JSON.
    """
    lines = zip(chosen["layer"], chosen["estimator"], chosen["rate"], strict=True)
    layers = {layer: spell(parse(name, rate)) for layer, name, rate in lines}
    of = totals(chosen)
    sums = {"kept_bytes": of.kept_bytes, "fraction": of.fraction, "ratio": of.ratio}
    records.write_json(
        path, {**about, "totals": sums | {"batch_fraction": of.batch_fraction}, "layers": layers}
    )


def load_plan(path: Path | str) -> dict[str, Estimator]:
    """Layer -> estimator of a plan, for ``sketch_linears(model, load_plan("plan.json"))``; exact
    layers are not in it.

    Raises ValueError for a file that is missing, unreadable or no plan.
    """
    if not Path(path).exists():
        raise ValueError(f"no file {path}; write a plan by sketchvar plan RUN --memory 0.25")
    layers = records.read_json(Path(path)).get("layers")
    if not isinstance(layers, dict):
        raise ValueError(f"{path} holds no plan; write one by sketchvar plan RUN --memory 0.25")
    return {name: parse(text) for name, text in layers.items() if text != "exact"}
