"""sketchvar plan: which estimator at which rate for which layer, for a memory budget or a noise
budget.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from sketchvar.analysis import records
from sketchvar.analysis.commands import Help
from sketchvar.analysis.folder import Folder, rows_of, task_of
from sketchvar.analysis.plan.baselines import (
    Single,
    Uniform,
    find_best_single,
    list_singles,
    trace_curves,
)
from sketchvar.analysis.plan.candidates import list_candidates
from sketchvar.analysis.plan.figure import ratio_by_memory
from sketchvar.analysis.plan.plan import save_plan
from sketchvar.analysis.plan.programme import minimize_bytes, minimize_noise
from sketchvar.analysis.plan.totals import COPY, Totals, sum_inputs, sum_layers
from sketchvar.analysis.style import save

CAPTION = """\
Share: of the bytes that exact training keeps of X. Ratio: variance / minibatch variance (by example).
Effective batch: a step is as noisy as an exact one on this part of its batch."""
NO_SHARING = (
    "These rows do not say which layers read the same input (an older run): a copy is counted for"
    " every layer; measure again to have query, key and value share theirs."
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    this = commands.add_parser(
        "plan",
        help="which estimator at which rate for which layer, for a memory budget or a noise budget",
        description=(
            "From the rows of a run, choose an estimator and a rate for every layer: the least"
            " variance for a budget of bytes, or the fewest bytes for a budget of variance. Prints"
            " the plan beside the best single choice and uniform rows; writes plan.json (for"
            " estimators.sketch_linears, by analysis.plan.load_plan) and a figure."
        ),
        formatter_class=Help,
    )
    this.add_argument(
        "run", type=Path, metavar="RUN", help="the folder of a run, or of files that a Probe wrote"
    )
    budget = this.add_mutually_exclusive_group(required=True)
    budget.add_argument(
        "--memory", type=float, metavar="F", help="keep at most this fraction of the layers' inputs"
    )
    budget.add_argument(
        "--noise", type=float, metavar="R", help="add at most this ratio to the minibatch variance"
    )
    this.add_argument(
        "--from-step",
        type=int,
        default=0,
        metavar="S",
        help="average over measured steps from here on (default: all)",
    )
    this.add_argument(
        "--exact",
        nargs="+",
        default=[],
        metavar="NAME",
        help="layers that stay exact: names, or patterns as head*",
    )
    this.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "float16"],
        help="in which X is kept (default: that of the run's task)",
    )
    this.add_argument(
        "--out", type=Path, metavar="FILE", help="where to write (default: RUN/plan.json)"
    )
    this.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> None:
    """Plan, print, write the plan and its figure."""
    a = arguments
    out = a.out or a.run / "plan.json"
    rows, dtype = rows_of(a.run), kept_dtype(a.run, a.precision)
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent}; make it, or choose another --out")
    steps = sorted(set(rows["step"]))
    rows = rows[rows["step"] >= a.from_step]
    if rows.empty:
        raise ValueError(
            f"no step from {a.from_step} on was measured; the last one is {steps[-1]}; change"
            " --from-step"
        )
    table = list_candidates(rows, dtype, a.exact)
    chosen = minimize_bytes(table, a.noise) if a.memory is None else minimize_noise(table, a.memory)
    of, found, uniform = sum_layers(chosen), list_singles(table), Uniform.of(rows, dtype, a.exact)
    within = {"fraction": a.memory} if a.noise is None else {"ratio": a.noise}
    beside = find_best_single(found, **within), uniform.within(**within) if uniform else None
    budget = (
        f"at most {a.memory:.4g} of X's bytes"
        if a.noise is None
        else f"a total ratio of at most {a.noise:.4g}"
    )
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    if "input_of" not in rows or rows["input_of"].isna().any():
        Console(stderr=True).print(NO_SHARING)
    console.print(
        layers(chosen, f"Plan for {budget}, mean of {rows['step'].nunique()} measured steps")
    )
    console.print(summary(of, *beside, sum_inputs(table)))
    about = {
        "run": str(rows["run"].iloc[0]),
        "commit": records.commit(),
        "steps": sorted(map(int, set(rows["step"]))),
    }
    save_plan(out, chosen, {**about, "budget": {"memory": a.memory, "noise": a.noise}})
    mpl.use("agg")
    picture = save(ratio_by_memory(trace_curves(table, uniform), of), out.with_suffix(""))[0]
    console.print(f"\n{out}\n{picture}", soft_wrap=True, highlight=False)


def kept_dtype(run: Path, precision: str | None) -> torch.dtype:
    """In which X is kept. Raises ValueError where nothing says it."""
    if precision is not None:
        return getattr(torch, precision)
    if not Folder(run).provenance.exists():
        raise ValueError(
            f"no run.json in {run} says in which precision X is kept; give --precision"
        )
    return task_of(run).dtype


def layers(chosen: pd.DataFrame, title: str) -> Table:
    """A line for each layer; one that shares the copy of a layer before it keeps nothing more."""
    grid = Table(title=title)
    for column in ("layer", "estimator"):
        grid.add_column(column, no_wrap=True)
    for column in ("rate", "kept bytes", "share", "ratio"):
        grid.add_column(column, justify="right")
    copies: dict[tuple[object, ...], str] = {}
    for row, copy in zip(
        chosen.to_dict("records"), chosen[COPY].itertuples(index=False, name=None), strict=True
    ):
        owner = copies.setdefault(copy, row["layer"])
        kept = f"{row['kept_bytes']:,.0f}" if owner == row["layer"] else f"with {owner}"
        ratio = row["variance"] / row["minibatch"] if row["minibatch"] > 0 else 0.0
        share = f"{row['kept_bytes'] / row['x_bytes']:.1%}"
        grid.add_row(
            row["layer"], row["estimator"], f"{row['rate']:g}", kept, share, f"{ratio:.2g}"
        )
    return grid


def summary(plan: Totals, single: Single | None, uniform: Single | None, whole: float) -> Table:
    """The plan's totals beside those of one choice for all layers."""
    grid = Table(title="All layers together", caption=CAPTION)
    grid.add_column("", no_wrap=True)
    for column in ("kept bytes", "share", "ratio", "effective batch"):
        grid.add_column(column, justify="right")
    lines = [("this plan", plan)]
    lines += (
        [(f"best single: {single.estimator}, rate {single.rate:g}", single.totals)]
        if single
        else []
    )
    lines += [(f"uniform rows, rate {uniform.rate:g}", uniform.totals)] if uniform else []
    for name, of in [*lines, ("exact", Totals(whole, 1.0, 0.0))]:
        grid.add_row(
            name,
            f"{of.kept_bytes:,.0f}",
            f"{of.fraction:.1%}",
            f"{of.ratio:.3g}",
            f"{of.batch_fraction:.0%}",
        )
    return grid
