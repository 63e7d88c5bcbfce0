"""Candidates of a plan: what each layer can take, over all steps that it is chosen on."""

import pandas as pd

from sketchvar.analysis.plan.objective import SUM, Objective
from sketchvar.analysis.plan.totals import CHOICE


def list_candidates(measured: pd.DataFrame, objective: Objective = SUM) -> pd.DataFrame:
    """List what each layer can take, a row each: layer, input_of, estimator, rate, kept_bytes,
    x_bytes, and ``noise``, what it adds to the total of the objective.

    ``measured`` is a table of ``measure_layers``. Bytes are means over its steps; ``noise`` is the
    mean over steps of the layer's part of each step's total, or where the objective is the largest
    number, the layer's largest. Beside ``exact`` it has what is smaller than X at all of the
    layer's steps.
    """
    each = measured["each"] * weigh_layers(measured, objective)
    groups = measured.assign(noise=each).groupby(["layer", *CHOICE], sort=False)
    table = groups.agg(
        input_of=("input_of", "first"),
        kept_bytes=("kept_bytes", "mean"),
        x_bytes=("x_bytes", "mean"),
        noise=("noise", "max" if objective.largest else "sum"),
        steps=("step", "size"),
    ).reset_index()
    if not objective.largest:
        table["noise"] /= measured["step"].nunique()
    exact = table["estimator"] == "exact"
    whole = table["steps"] == table["layer"].map(table[exact].set_index("layer")["steps"])
    table = table[exact | (whole & (table["kept_bytes"] < table["x_bytes"]))]
    names = list(dict.fromkeys(measured["layer"]))
    return table.drop(columns="steps").sort_values(
        "layer", key=lambda layers: layers.map(names.index), kind="stable", ignore_index=True
    )


def weigh_layers(measured: pd.DataFrame, objective: Objective) -> pd.Series:
    """What one unit of each row's number adds to the total of its step."""
    layers = measured.groupby("step")["layer"].transform("nunique")
    return layers.map(objective.weight)
