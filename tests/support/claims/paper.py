"""Claims of the paper."""

from functools import cache

import pandas as pd
from support.claims import claim, read


@cache
def variance() -> pd.DataFrame:
    """A row per layer and step: its ``bound``, the ratio that it ``limits``, and the Gaussian
    sketch's ``own`` variance, (Q + C)/k, over the D²_RMM of the paper, (Q − C)/k.
    """
    rows = read("paper/variance/rows.parquet").query("estimator == 'gaussian'")
    n, C = rows["rows"], rows["grad_sq"]
    Q, nD = C / rows["alpha"], rows["minibatch_row"] * (n - 1) + C
    # batches of padded sentences differ in rows, so k is that of their mean
    assert (rows["variance"] * rows["rate"] * n / (Q + C) - 1).abs().max() < 0.03
    return pd.DataFrame(
        {
            "limits": (Q - C) / (nD - C),
            "bound": 1 + 1 / rows["alpha"],
            "own": (Q + C) / (Q - C),
        }
    )


@claim("D²_RMM is the variance of the paper's sketches")
def d_rmm() -> str:
    return f"Gaussian's own is up to {variance()['own'].max():.2f} times as large (CoLA)"


@claim("The paper's bound (1 + α)/α holds")
def bound() -> str:
    rows = variance()
    holds = (rows["limits"] <= rows["bound"]).sum()
    loose = (rows["bound"] / rows["limits"]).median()
    return f"at {holds} of {len(rows)} layers and steps (CoLA), {loose:.0f} times too large"


@claim("Averaging m sketches beats one m times as large")
def averaging() -> str:
    rows = read("paper/averaging/rows.parquet").query("count == 8").set_index("estimator")
    over = rows["one"] / rows["variance"]
    half = 2 * over * rows["stderr"] / rows["variance"]
    at = {name: f"{over[name]:.2f} ± {half[name]:.2f}" for name in rows.index}
    return (
        f"variance of one over that of eight: Gaussian {at['gaussian']}, CountSketch"
        f" {at['countsketch']}, rows {at['uniform-rows']}"
    )
