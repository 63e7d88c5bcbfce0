"""A plan as a file: which estimator at which rate for which layer."""

from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from sketchvar.analysis import records
from sketchvar.estimators import Estimator, parse, spell
from sketchvar.estimators.planned import Layers


def save_plan(path: Path, chosen: pd.DataFrame, about: dict[str, Any]) -> None:
    """Save layer -> spelling, and what ``about`` says of the budget, the run and the totals, as
    JSON.
    """
    lines = zip(chosen["layer"], chosen["estimator"], chosen["rate"], strict=True)
    layers = {layer: spell(parse(name, rate)) for layer, name, rate in lines}
    records.write_json(path, {**fill_json(about), "layers": layers})


def fill_json(value: Any) -> Any:
    """What JSON can hold of nested numbers: None for one that is not finite."""
    if isinstance(value, dict):
        return {name: fill_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [fill_json(each) for each in value]
    value = value.item() if hasattr(value, "item") else value  # of NumPy
    return None if isinstance(value, float) and not isfinite(value) else value


def load_plan(path: Path | str) -> dict[str, Estimator]:
    """Load the plan at ``path`` as layer -> estimator; exact layers are not in it.

        sketch_linears(model, load_plan("plan.json"))

    Raises ValueError for a file that is missing, unreadable or no plan.
    """
    return {name: parse(text) for name, text in read_layers(path).items() if text != "exact"}


def name_plan(path: Path) -> tuple[str, Layers]:
    """Name the plan at ``path`` by its file, beside layers and spellings. Raises what ``load_plan``
    does.
    """
    return path.stem, tuple(read_layers(path).items())


def read_layers(path: Path | str) -> dict[str, str]:
    """Read a plan as layer -> spelling, "exact" included. Raises what ``load_plan`` does."""
    if not Path(path).exists():
        raise ValueError(f"no file {path}; write a plan by sketchvar plan RUN --memory 0.25")
    layers = records.read_json(Path(path)).get("layers")
    if not isinstance(layers, dict):
        raise ValueError(f"{path} holds no plan; write one by sketchvar plan RUN --memory 0.25")
    return layers
