"""Log: a dozen numbers of a measured step for a dashboard, and those of layers on request."""

import math
import re
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pandas as pd

from sketchvar.analysis.noise.scale import BOTH, read_both, smooth
from sketchvar.analysis.probe.patterns import is_named
from sketchvar.estimators.choice import as_list

Send = Callable[[dict[str, float], int], object]
DECAY = 0.9  # of the noise scale's moving averages, as ``noise_scale`` has it
PAST = 100  # steps that still count in them
PREFIX = "sketchvar"
LOG_FAILED = "log= raised an error, and training goes on without what it would have told"


class Log:
    """Sends numbers by ``send(numbers, step)``: those of the whole model (``summarize``), the noise
    scale as a moving average, and those of the ``layers`` that are named or match a pattern.

    The numbers are plain floats, and finite: what is not is left out. Names have slashes, and
    otherwise only what every logger takes.
    """

    def __init__(self, send: Send, layers: Collection[str] = ()) -> None:
        self.send, self.layers = send, layers
        self.past: deque[np.ndarray] = deque(maxlen=PAST)

    def tell(self, rows: pd.DataFrame, step: int, scale: tuple[float, float] | None = None) -> None:
        """Send the numbers of a step, of which these are the rows; ``scale`` is the noise scale of
        the whole model with its error, where that is known. Raises what ``send`` raises.
        """
        once = rows.drop_duplicates("layer")
        numbers = summarize(rows) | (self.average(once) if scale is None else name_scale(*scale))
        numbers |= list_layers(rows[[is_named(name, self.layers) for name in rows["layer"]]])
        self.send({name: float(n) for name, n in numbers.items() if math.isfinite(n)}, step)

    def average(self, once: pd.DataFrame) -> dict[str, float]:
        """The noise scale of all layers together, with its error: see ``noise_scale``."""
        self.past.append(read_both(once)[BOTH].sum(skipna=False).to_numpy())
        noise, noise_error, signal, signal_error = (
            smooth(np.stack(self.past)[:, 2 * i : 2 * i + 2], DECAY)[-1][j]
            for i in range(2)
            for j in range(2)
        )
        if not signal > 0:
            return {}
        relative = math.hypot(noise_error / noise, signal_error / signal) if noise else math.nan
        scale = noise / signal
        return name_scale(scale, scale * relative)


def name_scale(scale: float, stderr: float) -> dict[str, float]:
    """A noise scale and its error as numbers that are sent."""
    return {f"{PREFIX}/noise_scale": scale, f"{PREFIX}/noise_scale_stderr": stderr}


def summarize(rows: pd.DataFrame) -> dict[str, float]:
    """Summarize the rows of one step: of all layers together ‖G‖² and the minibatch variance
    (unit: example); for each estimator and rate its ratio, as a total (that of the sums), the
    median of the layers and the worst of them, and in another metric the total.
    """
    once = rows.drop_duplicates("layer")
    numbers = {
        f"{PREFIX}/measured_layers": len(once),
        f"{PREFIX}/grad_sq/total": once["grad_sq"].sum(),
        f"{PREFIX}/minibatch_variance/total": once["minibatch_example"].sum(skipna=False),
    }
    for _, part in rows.groupby(["estimator", "rate"], sort=False):
        first, known = part.iloc[0], part[part["ratio"].notna()]
        if first["estimator"] == "exact":
            continue
        name = spell(first)
        drawn = part["metric_minibatch"].sum(min_count=1)
        numbers |= {
            f"{PREFIX}/ratio/{name}/total": divide(
                known["variance"].sum(), known["minibatch_example"].sum()
            ),
            f"{PREFIX}/ratio/{name}/median": part["ratio"].median(),
            f"{PREFIX}/ratio/{name}/worst": part["ratio"].max(),
            f"{PREFIX}/metric_ratio/{name}/total": divide(part["metric_variance"].sum(), drawn),
        }
    return numbers


def list_layers(rows: pd.DataFrame) -> dict[str, float]:
    """List what the rows of a step say of each layer: ‖G‖², the minibatch variance and ratios."""
    numbers = {}
    for row in rows.to_dict("records"):
        place = f"{PREFIX}/layers/{clean(row['layer']) or 'model'}"
        numbers[f"{place}/grad_sq"] = row["grad_sq"]
        numbers[f"{place}/minibatch_variance"] = row["minibatch_example"]
        if row["estimator"] != "exact":
            numbers[f"{place}/ratio/{spell(row)}"] = row["ratio"]
    return numbers


def spell(row: Any) -> str:
    """Spell the choice of a row as a part of a name."""
    name = clean(row["estimator"])
    return f"{name}/{row['rate']:g}" if row["takes_rate"] else name


def clean(word: str) -> str:
    """Leave what every logger takes in a name: letters, digits, points, dashes."""
    return re.sub(r"[^\w.\-]+", "_", word).strip("_")


def divide(a: float, b: float) -> float:
    """a / b; not known unless b > 0."""
    return a / b if b > 0 else math.nan


def read_log(log: Any, layers: str | Collection[str]) -> Log | None:
    """Read the options ``log`` and ``log_layers``. Raises TypeError for what cannot be called, and
    ValueError for layers without a log.
    """
    if log is None:
        if as_list(layers):
            raise ValueError("log_layers= needs log=, as in log=wandb.log")
        return None
    if not callable(log):
        raise TypeError(
            "log= is a function of numbers by name and of the step, as wandb.log and"
            f" mlflow.log_metrics are, got {log!r}"
        )
    return Log(log, as_list(layers))
