"""A plan as a file: which estimator at which rate for which layer."""

from pathlib import Path
from typing import Any

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.plan.totals import sum_layers
from sketchvar.estimators import Estimator, parse, spell


def save_plan(path: Path, chosen: pd.DataFrame, about: dict[str, Any]) -> None:
    """Save layer -> spelling, the totals, and what ``about`` says of the budget and the run, as
    JSON.
    """
    lines = zip(chosen["layer"], chosen["estimator"], chosen["rate"], strict=True)
    layers = {layer: spell(parse(name, rate)) for layer, name, rate in lines}
    of = sum_layers(chosen)
    sums = {"kept_bytes": of.kept_bytes, "fraction": of.fraction, "ratio": of.ratio}
    records.write_json(
        path, {**about, "totals": sums | {"batch_fraction": of.batch_fraction}, "layers": layers}
    )


def load_plan(path: Path | str) -> dict[str, Estimator]:
    """Load a plan as layer -> estimator, for ``sketch_linears(model, load_plan("plan.json"))``;
    exact layers are not in it.

    Raises ValueError for a file that is missing, unreadable or no plan.
    """
    if not Path(path).exists():
        raise ValueError(f"no file {path}; write a plan by sketchvar plan RUN --memory 0.25")
    layers = records.read_json(Path(path)).get("layers")
    if not isinstance(layers, dict):
        raise ValueError(f"{path} holds no plan; write one by sketchvar plan RUN --memory 0.25")
    return {name: parse(text) for name, text in layers.items() if text != "exact"}
