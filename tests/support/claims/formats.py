"""Claims about training formats: FP4 and FP8."""

import pandas as pd
from support.claims import claim, read, span
from support.recorded import DATA, METHOD, final

from sketchvar.analysis.records import read_json
from sketchvar.analysis.sweep.pooled import Finals, holm

NAMES = {"nvfp4-both": "NVFP4", "mxfp4-both": "MXFP4", "fp8-both": "FP8"}
CHOICES = {"recipe": "the last", "exceptions": "NVFP4 with other", "plan": "this plan"}


@claim("Rounding X and Y to four bits costs training something")
def cost() -> str:
    rows = read("formats/cost/cost.parquet").query("horizon == 10").groupby("estimator")
    cells = [
        f"{label} {span(rows.get_group(name)['variance_ratio'], '.2g')} and"
        f" {span(rows.get_group(name)['cost_ratio'], '.2g')}"
        for name, label in NAMES.items()
    ]
    return f"variance and cost over the minibatch's: {'; '.join(cells)}"


def shares() -> pd.DataFrame:
    """Part of NVFP4's cost over one step by place in the model: a row per step."""
    rows = read("formats/cost/cost-layers.parquet").query("estimator == 'nvfp4-both'")
    places = rows["layer"].str.extract(r"blocks\.(\d)")[0].fillna("head")
    by = rows.assign(place=places).pivot_table("cost", "step", "place", aggfunc="sum")
    return by.div(by.sum(axis=1), axis=0)


def totals(name: str) -> dict[str, dict]:
    """What a plan's file says of it, of the published recipe, and of the best exceptions."""
    beside = read_json(DATA / "formats" / f"{name}.json")["beside"]
    return {
        key: next(row for row in beside if row["choice"].startswith(begin))
        for key, begin in CHOICES.items()
    }


def held_out(name: str) -> str:
    """Totals on the steps that the plan has not seen, two standard errors."""
    return ", ".join(
        f"{row['held_out']:.2g} ± {2 * row['held_out_stderr']:.1g}" for row in totals(name).values()
    )


@claim("The last blocks are what has to stay in BF16")
def exceptions() -> str:
    by = shares()
    assert totals("plan")["recipe"]["held_out"] > 5 * totals("plan")["exceptions"]["held_out"]
    return (
        f"part of NVFP4's cost: head {span(by['head'])}, first block {span(by['0'])}, last block"
        f" {span(by['3'], '.2g')}; at equal bytes recipe, other exceptions, exceptions in FP8 too:"
        f" cost {held_out('plan')}, variance {held_out('plan-variance')}"
    )


def trained() -> tuple[Finals, dict[str, tuple]]:
    """Final losses, and the methods that round."""
    rows = final(DATA / "formats" / "train")
    finals = Finals(rows.pivot_table(index=METHOD, columns="seed", values="validation"))
    return finals, {str(m[0]): m for m in finals.table.index if m[0] != "exact"}


@claim("A plan of formats trains like exact training")
def plans() -> str:
    finals, methods = trained()
    found = {name: finals.differ_from_exact(m, m[2]) for name, m in methods.items()}
    assert min(holm([each.p for each in found.values()])) > 0.05
    least, most = (f(each.mean for each in found.values()) for f in (min, max))
    half = max(each.half for each in found.values())
    least_shown = f"{least:.3f}".replace("-", "−")
    return (
        f"0 of {len(found)} resolved: {least_shown} to {most:.3f}, each ± {half:.3f}; with power"
        f" 0.8 these seeds show {finals.detectable():.3f}"
    )
