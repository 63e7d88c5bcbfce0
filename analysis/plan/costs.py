"""The measured cost of every layer as rows that a plan can be made from."""

from pathlib import Path

import numpy as np
import pandas as pd

from sketchvar.analysis import records

KEYS = ["step", "estimator", "rate"]


def read_costs(folder: Path, horizon: float | None = None) -> pd.DataFrame:
    """Read the rows of a folder of ``sketchvar cost --by-layer``: ``cost_ratio`` is what a layer's
    noise costs over a horizon (unless given the longest finite one that was measured), over the
    cost of the minibatch's in the whole model; its ``_stderr`` beside it.

    Layers draw independently, so that their costs add up to the whole model's at every horizon. By
    layer the cost of one step was measured: the whole model's over longer ones is shared out as
    that is. Raises ValueError where it cannot be read or has no such horizon.
    """
    if not (folder / "cost-layers.parquet").exists():
        raise ValueError(
            f"no file {folder / 'cost-layers.parquet'}; make it: sketchvar cost --by-layer"
        )
    layers = records.read_rows(folder / "cost-layers.parquet")
    if "input_of" not in layers:
        raise ValueError(
            f"{folder / 'cost-layers.parquet'} does not say what each layer keeps, as those of an"
            " earlier version; measure again"
        )
    table = records.read_rows(folder / "cost.parquet")
    at = table.groupby("horizon")["step"].nunique()
    known = sorted(at.index[at == table["step"].nunique()])  # at every step
    if horizon is None:
        horizon = max(each for each in known if np.isfinite(each))
    if horizon not in known:
        raise ValueError(
            f"no cost over a horizon of {horizon:g} was measured; there are"
            f" {' '.join(f'{each:g}' for each in known)}; change --horizon"
        )
    whole = table[table["horizon"] == horizon][[*KEYS, "cost_ratio", "cost_ratio_stderr"]]
    rows = layers.drop(columns=["cost_ratio", "cost_ratio_stderr"]).merge(whole, on=KEYS)
    total = rows.groupby(KEYS)["cost"].transform("sum")
    part, error = rows["cost"] / total, rows["cost_stderr"] / total
    return rows.assign(
        cost_ratio=part * rows["cost_ratio"],
        cost_ratio_stderr=np.hypot(error * rows["cost_ratio"], part * rows["cost_ratio_stderr"]),
        horizon=horizon,
    )
