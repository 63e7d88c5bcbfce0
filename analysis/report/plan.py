"""What a plan says: an estimator and a rate for every layer, beside one choice for all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sketchvar.analysis import records
from sketchvar.analysis.noise.horizon import name_horizon
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import (
    NONE,
    Column,
    Row,
    Table,
    show_number,
    show_text,
    write_digits,
    write_percent,
    write_short,
    write_whole,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Share: of the bytes that exact training keeps of X. Chosen: on the steps that the plan was"
    " chosen on; held out: on the others, which it has not seen. Means over steps with the standard"
    " error of their spread, or of what was measured (as if all layers erred one way) where that is"
    " more; without ± it is not known."
)
EARLIER = (  # of plans before 0.3
    "Share: of the bytes that exact training keeps of X. Ratio: Σ variance / Σ minibatch variance"
    " (by example), a sum that few layers and steps decide."
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
        sentences=list_sentences(plan),
        provenance={
            name: plan[name] for name in ("run", "commit", "steps", "held_out") if name in plan
        },
    )


def list_sentences(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """What has to be said of a plan beside its tables."""
    said = list_exceptions(plan) if plan.get("formats") else []
    if not plan.get("shares_inputs", True):
        said.append(NO_SHARING)
    if out := plan.get("left_out"):
        said.append(
            f"Left out, as they see one row of each example where other layers see several:"
            f" {', '.join(out)}. They stay exact; --layers '*' plans them too."
        )
    if (horizon := plan.get("horizon")) is not None:
        said.append(
            f"Cost over {name_horizon(horizon)}; by layer one step was measured, and the whole"
            " model's cost is shared out over layers as that is."
        )
    if "by_step" in plan:
        said.append(compare_parts(plan))
    return tuple(said)


def list_exceptions(plan: Mapping[str, Any]) -> list[str]:
    """Which layers are in which format, and what that rests on."""
    groups: dict[str, list[str]] = {}
    for layer, spelling in plan["layers"].items():
        groups.setdefault("BF16" if spelling == "exact" else spelling, []).append(layer)
    counts = ", ".join(f"{len(names)} in {name}" for name, names in sorted(groups.items()))
    said = [f"Of {len(plan['layers'])} layers {counts}."]
    if away := plan.get("exceptions"):
        said.append(f"Of NVFP4 and BF16 alone, BF16 pays most in {', '.join(away)}.")
    said.append(
        "The formats are emulated: their values in the arithmetic of the run, bytes as packed; only"
        " the noise of the weight gradient counts."
    )
    return said


def compare_parts(plan: Mapping[str, Any]) -> str:
    """How the plan does on steps that it has not seen."""
    total, out = plan["totals"], plan["held_out"]
    if not out:
        steps = "one measured step" if len(plan["steps"]) == 1 else "all measured steps"
        unknown = " and its error is unknown" if total["ratio_stderr"] is None else ""
        return f"Chosen on {steps}: how it does on others{unknown}; measure at several steps."
    inside, outside = write_total(total, "ratio"), write_total(total, "held_out")
    both = (
        f"Chosen on {list_steps(plan['steps'])}: {inside}; held out, {list_steps(out)}: {outside}"
    )
    if total["more_half"] is None:
        return f"{both}; errors are unknown: measure at more steps, or by more batches."
    apart = f"{write_digits(total['more'])} ± {write_digits(total['more_half'])}".replace("-", "−")
    verdict = "within" if abs(total["more"]) <= total["more_half"] else "NOT within"
    return f"{both}, {verdict} their errors: more by {apart} (95 %, Welch's t over the steps)."


def list_steps(steps: Sequence[int]) -> str:
    """Steps in words."""
    return f"step{'s' * (len(steps) > 1)} {', '.join(map(str, steps))}"


def write_total(row: Row, field: str) -> str:
    """A total with its standard error, where that is known."""
    value, error = row.get(field), row.get(f"{field}_stderr")
    if value is None:
        return NONE
    return f"{write_digits(value)} ± {write_digits(error)}" if error else write_digits(value)


def list_tables(plan: Mapping[str, Any]) -> tuple[Table, ...]:
    """The choice for every layer, the score at every step, and the totals beside those of other
    choices.
    """
    title = f"Plan for {name_budget(plan)}"
    if "choices" not in plan:  # of an earlier version
        lines = tuple({"layer": k, "estimator": v} for k, v in plan.get("layers", {}).items())
        columns = (show_text("layer"), show_text("estimator"))
        whole = ({"choice": "this plan", **plan.get("totals", {})},)
        return Table("plan", title, columns, lines), sum_up(whole)
    new = "by_step" in plan
    scored = bool(plan.get("held_out"))
    columns = (
        show_text("layer"),
        show_text("estimator"),
        show_number("rate", None, write_short),
        Column("kept bytes", show_bytes),
        show_number("fraction", "share", write_percent),
        show_number("ratio", "chosen" if new else "ratio"),
        *((show_number("held_out", "held out"),) if new and scored else ()),
    )
    if not new:
        title += f", mean of {len(plan['steps'])} measured steps"
        lines = tuple(plan["choices"])
        return Table("plan", title, columns, lines), sum_up(tuple(plan["beside"]))
    words = name_objective(plan)
    return (
        Table("plan", f"{title}; of each layer", columns, tuple(plan["choices"])),
        Table("steps", f"This plan at every step: {words}", STEPS, tuple(plan["by_step"])),
        total_up(tuple(plan["beside"]), words, scored),
    )


def show_part(row: Row) -> str:
    """Which part of the steps one belongs to."""
    return "held out" if row["held_out"] else "chosen on"


STEPS = (
    show_number("step", None, write_whole),
    Column("", show_part, text=True),
    Column("total", lambda row: write_total({**row, "ratio_stderr": row["stderr"]}, "ratio")),
    show_number("median", "median layer"),
    show_number("largest", "largest layer"),
    show_text("layer", "which"),
)


def total_up(rows: tuple[Row, ...], words: str, scored: bool) -> Table:
    """Totals, a row for each way to choose, and where it was ``scored`` on other steps those."""
    columns = (
        show_text("choice", ""),
        show_number("kept_bytes", "kept bytes", write_whole),
        show_number("fraction", "share", write_percent),
        Column("chosen", lambda row: write_total(row, "ratio")),
        *([Column("held out", lambda row: write_total(row, "held_out"))] if scored else []),
    )
    return Table("totals", f"In total: {words}", columns, rows, CAPTION)


def sum_up(rows: tuple[Row, ...]) -> Table:
    """Totals of a plan of an earlier version."""
    columns = (
        show_text("choice", ""),
        show_number("kept_bytes", "kept bytes", write_whole),
        show_number("fraction", "share", write_percent),
        show_number("ratio"),
    )
    return Table("totals", "All layers together", columns, rows, EARLIER)


def name_objective(plan: Mapping[str, Any]) -> str:
    """The objective in words."""
    from sketchvar.analysis.plan.objective import find_objective

    horizon = plan.get("horizon")
    over = "" if horizon is None else f", over {name_horizon(horizon)}"
    return find_objective(plan.get("objective", "sum")).words + over


def name_budget(plan: Mapping[str, Any]) -> str:
    """The budget in words."""
    budget = plan.get("budget", {})
    if budget.get("memory") is not None:
        return f"at most {budget['memory']:.4g} of X's bytes"
    if budget.get("noise") is not None:
        return f"a total of at most {budget['noise']:.4g}"
    return "no budget that it names"


def show_bytes(row: Row) -> str:
    """Bytes, or the layer whose copy is shared."""
    return f"with {row['copy_of']}" if row["copy_of"] else write_whole(row["kept_bytes"])


def list_pictures(plan: Mapping[str, Any], name: str) -> tuple[Picture, ...]:
    """The plan among other choices; none where an earlier version did not keep the curves."""
    if "curves" not in plan:
        return ()
    caption = "The total against memory: plans, one choice for all layers, uniform rows"
    return (Picture(name, caption, lambda: draw_curves(plan)),)


def draw_curves(plan: Mapping[str, Any]) -> "Figure":
    import pandas as pd

    from sketchvar.analysis.plan.figure import ratio_by_memory

    words = name_objective(plan) if "by_step" in plan else "Σ variance / Σ minibatch variance"
    return ratio_by_memory(pd.DataFrame(plan["curves"]), plan["totals"], words)
