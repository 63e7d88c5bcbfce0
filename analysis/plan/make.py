"""make_plan(): from a folder of rows to a plan within a budget, with what it is set beside, as a
file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sketchvar.analysis import records
from sketchvar.analysis.folder import kept_dtype, rows_of
from sketchvar.analysis.plan.baselines import (
    Single,
    Uniform,
    find_best_single,
    list_singles,
    trace_curves,
)
from sketchvar.analysis.plan.candidates import drop_unplanned, list_candidates
from sketchvar.analysis.plan.plan import save_plan
from sketchvar.analysis.plan.programme import minimize_bytes, minimize_noise
from sketchvar.analysis.plan.totals import COPY, Totals, sum_inputs, sum_layers


@dataclass(frozen=True)
class Budget:
    """What a plan may spend: a fraction ``memory`` of X's bytes, or a ratio ``noise`` to the
    minibatch variance. Raises ValueError unless it is one of the two.
    """

    memory: float | None = None
    noise: float | None = None

    def __post_init__(self) -> None:
        if (self.memory is None) == (self.noise is None):
            raise ValueError(
                f"a budget is of memory or of noise, got {self.memory} and {self.noise}; give one"
            )

    def within(self) -> dict[str, float]:
        """The limit, as ``best_single`` and ``Uniform.within`` take it."""
        if self.memory is not None:
            return {"fraction": self.memory}
        return {"ratio": float(self.noise or 0)}


def make_plan(
    run: Path,
    budget: Budget,
    out: Path,
    from_step: int = 0,
    exact: tuple[str, ...] = (),
    precision: str | None = None,
) -> dict[str, Any]:
    """Choose an estimator and a rate for every layer of a run, from its rows at ``from_step`` on,
    and write the plan to ``out``; returns what is written.

    Beside ``layers`` (what ``load_plan`` reads) it holds ``choices``, a row per layer, ``beside``,
    the totals of this plan and of one choice for all layers, and ``curves``, of all budgets.
    ``exact``: patterns of layers that stay exact. ``precision`` is that in which X is kept: the
    run's own unless given. Raises ValueError for rows, a budget or a place that make no plan.
    """
    rows = rows_of(run)
    dtype = kept_dtype(run, rows) if precision is None else getattr(torch, precision)
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent}; make it, or choose another --out")
    last = max(rows["step"])
    rows = rows[rows["step"] >= from_step]
    if rows.empty:
        raise ValueError(
            f"no step from {from_step} on was measured; the last one is {last}; change --from-step"
        )
    table = list_candidates(rows, dtype, exact)
    if budget.memory is None:
        chosen = minimize_bytes(table, budget.noise or 0.0)
    else:
        chosen = minimize_noise(table, budget.memory)
    found, uniform, limit = (
        list_singles(table),
        Uniform.of(drop_unplanned(rows), dtype, exact),
        budget.within(),
    )
    best = find_best_single(found, **limit)
    baseline = uniform.within(**limit) if uniform else None
    lines = [describe("this plan", sum_layers(chosen))]
    lines += [describe_single(f"best single: {best.estimator}", best)] if best else []
    lines += [describe_single("uniform rows", baseline)] if baseline else []
    lines += [describe("exact", Totals(sum_inputs(table), 1.0, 0.0))]
    about = {
        "run": str(rows["run"].iloc[0]),
        "commit": records.commit(),
        "steps": sorted(map(int, set(rows["step"]))),
        "budget": {"memory": budget.memory, "noise": budget.noise},
        "shares_inputs": "input_of" in rows and bool(rows["input_of"].notna().all()),
        "choices": list_choices(chosen),
        "beside": lines,
        "curves": trace_curves(table, uniform).to_dict("records"),
    }
    save_plan(out, chosen, about)
    return records.read_json(out)


def list_choices(chosen: pd.DataFrame) -> list[dict[str, Any]]:
    """A row per layer; ``copy_of`` is the layer before it whose compressed copy it reads."""
    copies: dict[tuple[object, ...], str] = {}
    lines = []
    keys = chosen[COPY].itertuples(index=False, name=None)
    for row, key in zip(chosen.to_dict("records"), keys, strict=True):
        owner = copies.setdefault(key, row["layer"])
        lines.append(
            {
                **{name: row[name] for name in ("layer", "estimator", "rate", "kept_bytes")},
                "fraction": row["kept_bytes"] / row["x_bytes"],
                "ratio": row["variance"] / row["minibatch"] if row["minibatch"] > 0 else 0.0,
                "copy_of": None if owner == row["layer"] else owner,
            }
        )
    return lines


def describe(name: str, of: Totals) -> dict[str, Any]:
    """Totals as a row."""
    return {
        "choice": name,
        "kept_bytes": of.kept_bytes,
        "fraction": of.fraction,
        "ratio": of.ratio,
        "batch_fraction": of.batch_fraction,
    }


def describe_single(name: str, single: Single) -> dict[str, Any]:
    """The totals of one choice for all layers, as a row."""
    return describe(f"{name}, rate {single.rate:g}", single.totals)
