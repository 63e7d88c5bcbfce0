"""make_plan(): from a folder of rows to a plan within a budget, with what it is set beside, as a
file.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sketchvar.analysis import records
from sketchvar.analysis.folder import kept_dtype, rows_of
from sketchvar.analysis.plan.baselines import find_best_single, list_singles
from sketchvar.analysis.plan.costs import read_costs
from sketchvar.analysis.plan.curves import trace_curves
from sketchvar.analysis.plan.evidence import Evidence
from sketchvar.analysis.plan.formats import (
    EXCEPTIONS,
    RECIPE,
    find_fp4,
    follow_recipe,
    keep_formats,
)
from sketchvar.analysis.plan.measured import list_single_rows, measure_layers
from sketchvar.analysis.plan.objective import find_objective
from sketchvar.analysis.plan.plan import save_plan
from sketchvar.analysis.plan.programme import minimize_bytes, minimize_noise
from sketchvar.analysis.plan.totals import COPY, sum_layers


@dataclass(frozen=True)
class Budget:
    """What a plan may spend: a fraction ``memory`` of X's bytes, or a total ``noise`` in the
    numbers of the objective. Raises ValueError unless it is one of the two.
    """

    memory: float | None = None
    noise: float | None = None

    def __post_init__(self) -> None:
        if (self.memory is None) == (self.noise is None):
            raise ValueError(
                f"a budget is of memory or of noise, got {self.memory} and {self.noise}; give one"
            )

    def within(self) -> dict[str, float]:
        """The limit by its name: ``{"fraction": …}`` of X's bytes, or ``{"ratio": …}``."""
        if self.memory is not None:
            return {"fraction": self.memory}
        return {"ratio": float(self.noise or 0)}

    def choose(self, table: pd.DataFrame, largest: bool) -> pd.DataFrame:
        """The best rows of ``list_candidates``' ``table`` within it, one per layer, by the total
        or, with ``largest``, by the worst layer.
        """
        if self.memory is None:
            return minimize_bytes(table, self.noise or 0.0, largest)
        return minimize_noise(table, self.memory, largest)


def make_plan(
    run: Path,
    budget: Budget | None,
    out: Path,
    from_step: int = 0,
    exact: tuple[str, ...] = (),
    precision: str | None = None,
    *,
    objective: str = "sum",
    horizon: float | None = None,
    layers: str | None = None,
    hold_out: Collection[int] | None = None,
    formats: bool = False,
) -> dict[str, Any]:
    """Choose an estimator and a rate for every layer of a run, from its rows at ``from_step`` on,
    and write the plan to ``out``; returns what is written.

    ``objective`` is what is made small, and what a budget of noise is of: "sum", "largest",
    "metric" or "cost", of which
    "cost" takes the folder of a ``sketchvar cost --by-layer`` for ``run``, and a ``horizon``. The
    plan is chosen on some steps and scored on the others, ``hold_out``: every second one unless
    given. ``layers`` is a pattern of those that are planned: all but those that see one row of each
    example where others see several, unless given. ``exact``: patterns of layers that stay exact.
    ``precision`` is that in which X is kept: the run's own unless given. ``formats`` chooses among
    FP4, FP8 and BF16 alone, beside the published recipe, whose bytes are the budget where none is
    given; X is kept in bfloat16 then. The recipe is a plan too, in a file of the same name and
    "-recipe", and the best of NVFP4 and BF16 alone in one with "-exceptions".

    Beside ``layers`` (what ``load_plan`` reads) the file holds ``choices``, a row per layer,
    ``by_step``, the plan's score at every step, ``beside``, the totals of this plan and of one
    choice for all layers, and ``curves``, of all budgets. Raises ValueError for rows, a budget or
    a place that make no plan.
    """
    aim = find_objective(objective)
    rows = read_costs(run, horizon) if aim.name == "cost" else rows_of(run)
    precision = "bfloat16" if formats and precision is None else precision
    dtype = kept_dtype(run, rows) if precision is None else getattr(torch, precision)
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent}; make it, or choose another --out")
    last = max(rows["step"])
    rows = rows[rows["step"] >= from_step]
    if rows.empty:
        raise ValueError(
            f"no step from {from_step} on was measured; the last one is {last}; change --from-step"
        )
    measured = measure_layers(rows, dtype, exact, aim, layers)
    measured = keep_formats(measured) if formats else measured
    evidence = Evidence.split(measured, dtype, aim, hold_out)
    table, uniform = evidence.table, evidence.uniform
    recipe = follow_recipe(table) if formats else None
    budget = budget or Budget(None if recipe is None else sum_layers(recipe).fraction)
    chosen = budget.choose(table, aim.largest)
    limit = budget.within()
    best = find_best_single(list_singles(table, aim.largest), **limit)
    baseline = uniform.within(**limit) if uniform else None
    total = evidence.total(chosen)
    lines = [{"choice": "this plan", **total}]
    if best:
        name = f"best single: {best.estimator}, rate {best.rate:g}"
        lines.append({"choice": name, **evidence.total(best.chosen)})
    if recipe is not None:
        lines.append({"choice": RECIPE, **evidence.total(recipe)})
    others = choose_exceptions(table, budget, aim.largest) if formats else None
    if others is not None:
        lines.append({"choice": EXCEPTIONS, **evidence.total(others)})
    if baseline:
        name = f"uniform rows, rate {baseline.rate:g}"
        lines.append({"choice": name, **evidence.total_uniform(baseline)})
    lines.append({"choice": "exact", **evidence.total(table[table["estimator"] == "exact"])})
    about = {
        "run": str(rows["run"].iloc[0]),
        "commit": records.commit(),
        "objective": aim.name,
        "horizon": float(rows["horizon"].iloc[0]) if "horizon" in rows else None,
        "budget": {"memory": budget.memory, "noise": budget.noise},
        "formats": formats,
        "exceptions": list_exact(others),
        "shares_inputs": "input_of" in rows and bool(rows["input_of"].notna().all()),
        "left_out": list_single_rows(rows) if layers is None else [],
        "totals": total,
        "choices": list_choices(chosen, evidence),
        "steps": evidence.steps[0],
        "held_out": evidence.steps[1],
        "by_step": evidence.by_step(chosen),
        "beside": lines,
        "curves": trace_curves(evidence).to_dict("records"),
    }
    save_plan(out, chosen, about)
    for part, words, plan in (("recipe", RECIPE, recipe), ("exceptions", EXCEPTIONS, others)):
        if plan is not None:
            of = {"run": about["run"], "commit": about["commit"], "choice": words}
            save_plan(out.with_stem(f"{out.stem}-{part}"), plan, of)
    return records.read_json(out)


def choose_exceptions(table: pd.DataFrame, budget: Budget, largest: bool) -> pd.DataFrame | None:
    """The best plan of NVFP4 and BF16 alone within the budget; None where none fits."""
    two = table[table["estimator"].isin({"exact", find_fp4(table)})]
    try:
        return budget.choose(two, largest)
    except ValueError:
        return None


def list_exact(chosen: pd.DataFrame | None) -> list[str]:
    """The layers that stay exact; none where there is no plan."""
    return [] if chosen is None else list(chosen["layer"][chosen["estimator"] == "exact"])


def list_choices(chosen: pd.DataFrame, evidence: Evidence) -> list[dict[str, Any]]:
    """A row per layer: its choice, its number of the objective over the steps that were chosen on
    and over those held out; ``copy_of`` is the layer before it whose compressed copy it reads.
    """
    copies: dict[tuple[object, ...], str] = {}
    lines = []
    means = [part.groupby(["layer", "estimator", "rate"])["each"].mean() for part in evidence.parts]
    keys = chosen[COPY].itertuples(index=False, name=None)
    for row, key in zip(chosen.to_dict("records"), keys, strict=True):
        owner = copies.setdefault(key, row["layer"])
        choice = {name: row[name] for name in ("layer", "estimator", "rate", "kept_bytes")}
        at = tuple(row[name] for name in ("layer", "estimator", "rate"))
        lines.append(
            {
                **choice,
                "fraction": row["kept_bytes"] / row["x_bytes"],
                "ratio": means[0][at],
                "held_out": means[1].get(at),
                "copy_of": None if owner == row["layer"] else owner,
            }
        )
    return lines
