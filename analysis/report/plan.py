"""What a plan says: an estimator and a rate for every layer, beside one choice for all."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sketchvar.analysis import records
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import (
    Column,
    Row,
    Table,
    show_number,
    show_text,
    write_percent,
    write_short,
    write_whole,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Share: of the bytes that exact training keeps of X. Ratio: variance / minibatch variance (by"
    " example). Effective batch: a step is as noisy as an exact one on this part of its batch."
)
NO_SHARING = (
    "These rows do not say which layers read the same input (an older run): a copy is counted for"
    " every layer; measure again to have query, key and value share theirs."
)


def read(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder that holds a plan and not the run that it was made for."""
    return read_plan(folder / "plan.json")


def read_plan(file: Path) -> Contents:
    """All of a plan's file."""
    plan = records.read_json(file)
    return Contents(
        title=f"plan for {plan.get('run', 'a run')}",
        tables=list_tables(plan),
        pictures=list_pictures(plan, file.stem),
        sentences=() if plan.get("shares_inputs", True) else (NO_SHARING,),
        provenance={name: plan[name] for name in ("run", "commit", "steps") if name in plan},
    )


def list_tables(plan: Mapping[str, Any]) -> tuple[Table, ...]:
    """The choice for every layer, and the totals beside those of other choices."""
    if "choices" not in plan:  # of an earlier version
        lines = tuple({"layer": k, "estimator": v} for k, v in plan.get("layers", {}).items())
        whole = ({"choice": "this plan", **plan.get("totals", {})},)
        return (
            Table(
                "plan",
                f"Plan for {name_budget(plan)}",
                (show_text("layer"), show_text("estimator")),
                lines,
            ),
            sum_up(whole),
        )
    columns = (
        show_text("layer"),
        show_text("estimator"),
        show_number("rate", None, write_short),
        Column("kept bytes", show_bytes),
        show_number("fraction", "share", write_percent),
        show_number("ratio"),
    )
    steps = len(plan["steps"])
    title = f"Plan for {name_budget(plan)}, mean of {steps} measured steps"
    return Table("plan", title, columns, tuple(plan["choices"])), sum_up(tuple(plan["beside"]))


def sum_up(rows: tuple[Row, ...]) -> Table:
    """Totals of all layers, a row for each way to choose."""
    columns = (
        show_text("choice", ""),
        show_number("kept_bytes", "kept bytes", write_whole),
        show_number("fraction", "share", write_percent),
        show_number("ratio"),
        show_number("batch_fraction", "effective batch", write_percent),
    )
    return Table("totals", "All layers together", columns, rows, CAPTION)


def name_budget(plan: Mapping[str, Any]) -> str:
    """The budget in words."""
    budget = plan.get("budget", {})
    if budget.get("memory") is not None:
        return f"at most {budget['memory']:.4g} of X's bytes"
    if budget.get("noise") is not None:
        return f"a total ratio of at most {budget['noise']:.4g}"
    return "no budget that it names"


def show_bytes(row: Row) -> str:
    """Bytes, or the layer whose copy is shared."""
    return f"with {row['copy_of']}" if row["copy_of"] else write_whole(row["kept_bytes"])


def list_pictures(plan: Mapping[str, Any], name: str) -> tuple[Picture, ...]:
    """The plan among other choices; none where an earlier version did not keep the curves."""
    if "curves" not in plan:
        return ()
    caption = "Total ratio against memory: plans, one choice for all layers, uniform rows"
    return (Picture(name, caption, lambda: draw_curves(plan)),)


def draw_curves(plan: Mapping[str, Any]) -> "Figure":
    import pandas as pd

    from sketchvar.analysis.plan.figure import ratio_by_memory
    from sketchvar.analysis.plan.totals import Totals

    of = plan["totals"]
    chosen = Totals(of["kept_bytes"], of["fraction"], of["ratio"])
    return ratio_by_memory(pd.DataFrame(plan["curves"]), chosen)
