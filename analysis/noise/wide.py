"""The table of layers side by side: the ratio of every layer (down) and estimator (across)."""

from typing import Any

import pandas as pd

from sketchvar.analysis.noise.scale import TOTAL, batch_fraction, noise_scale
from sketchvar.analysis.noise.select import at_rate, choose_rate, choose_step

SHARES = ("bytes kept", "effective batch")  # lines that are fractions


def widen(rows: pd.DataFrame, rate: float | None = None, step: int | None = None) -> pd.DataFrame:
    """Ratios of one step, the last unless given, and one rate, 0.1 or the least unless given.

    A line for each layer, with its ``minibatch_example`` and ``noise_scale`` (from this step
    alone); above them the bytes that are kept of X, where rows know them; below them the median,
    all layers together, and the effective batch fraction. Raises ValueError for what was not
    measured.
    """
    shown = at_rate(choose_step(rows, step), choose_rate(rows, rate))
    pivot: dict[str, Any] = {
        "index": "layer",
        "columns": "estimator",
        "sort": False,
        "dropna": False,
    }
    ratios = shown.pivot_table(values="ratio", **pivot)
    once = shown.drop_duplicates("layer").set_index("layer")["minibatch_example"]
    scale = noise_scale(shown, decay=0).set_index("layer")["noise_scale"]
    total = batch_fraction(shown).set_index(["layer", "estimator"]).loc[TOTAL]
    feet = pd.DataFrame(
        [ratios.median(), total["ratio"], total["fraction"]], index=["median", TOTAL, SHARES[1]]
    )
    table = pd.concat([ratios, feet])
    if "x_bytes" in shown and shown["x_bytes"].notna().all():
        sums = shown.groupby("estimator", sort=False)[["kept_bytes", "x_bytes"]].sum()
        kept = (sums["kept_bytes"] / sums["x_bytes"]).rename(SHARES[0])
        table = pd.concat([kept.to_frame().T, table])
    numbers = pd.DataFrame({"minibatch_example": once, "noise_scale": scale.drop(TOTAL)})
    numbers.loc[TOTAL] = [once.sum(), scale[TOTAL]]
    table = numbers.reindex(table.index).join(table)
    table.index.name = "layer"
    return table
