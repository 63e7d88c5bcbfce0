"""NoiseScale: the noise scale of a model and of each kind of its parameters, by moving averages
that can be saved with a training and go on.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from sketchvar.analysis.noise.scale import ALL, WHOLE

SCALES = ["step", "kind", "noise", "signal", "noise_scale", "noise_scale_stderr"]


@dataclass
class Average:
    """Moving averages of noise and signal, and of what they change by from one step to the next."""

    weight: float = 0.0  # Σ decay^i
    squares: float = 0.0  # Σ decay^2i
    noise: float = 0.0
    signal: float = 0.0
    changes: int = 0
    spread: tuple[float, float, float] = (0.0, 0.0, 0.0)  # Σ ½Δ² of noise, of both, of signal
    before: tuple[float, float] | None = None

    def add(self, noise: float, signal: float, decay: float) -> None:
        """Take a step."""
        self.weight, self.squares = 1 + decay * self.weight, 1 + decay**2 * self.squares
        self.noise, self.signal = noise + decay * self.noise, signal + decay * self.signal
        if self.before is not None:
            a, b = noise - self.before[0], signal - self.before[1]
            each = zip((a * a / 2, a * b / 2, b * b / 2), self.spread, strict=True)
            self.spread = tuple(new + decay * old for new, old in each)  # type: ignore[assignment]
            self.changes += 1
        self.before = noise, signal

    @property
    def means(self) -> tuple[float, float]:
        """Of noise and signal."""
        return self.noise / self.weight, self.signal / self.weight

    def scale(self, decay: float) -> tuple[float, float]:
        """B_simple with its standard error; NaN where the signal is not positive."""
        noise, signal = self.means
        if signal <= 0:
            return math.nan, math.nan
        B = noise / signal
        if self.changes < 2:
            return B, math.nan
        known = self.weight - decay ** (self.changes) if decay else 1.0  # Σ decay^i of the changes
        a, c, b = (each / known for each in self.spread)
        relative = max(a - 2 * B * c + B * B * b, 0.0) / signal**2
        return B, (relative * self.squares / self.weight**2) ** 0.5


class NoiseScale:
    """B_simple = tr Σ / ‖E g‖², in examples, of all parameters and of each kind of them.

        scale = NoiseScale()
        scale.add(probe.noise())      # or probe.scale, which is kept as steps end
        scale.value(), scale.table()

    A ratio of moving averages, each of an unbiased estimate, that keep ``decay`` of the past. The
    standard errors come from how much noise and signal change from one measured step to the next,
    which are independent batches: that needs three steps, counts a drift between them as error, and
    takes errors of noise and signal together.

    ``state_dict`` holds plain numbers; ``load_state_dict`` raises ValueError for the state of
    another model, or with another decay. Raises ValueError for a decay outside [0, 1).
    Source: McCandlish et al. 2018, https://arxiv.org/abs/1812.06162, appendix A.
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be 0 or more and less than 1, got {decay:g}")
        self.decay = decay
        self.averages: dict[str, Average] = {}
        self.sizes: dict[str, int] = {}  # entries of each kind's parameters
        self.step = -1

    def add(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Take the rows of a probe's ``noise()``, step by step; returns ``table`` of each step."""
        sums = rows[rows["parameter"] == WHOLE]
        tables = []
        for _, part in sums.groupby("step", sort=True):
            for row in part.to_dict("records"):
                self.add_row(row)
            tables.append(self.table())
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=SCALES)

    def add_row(self, row: Mapping[Any, Any]) -> None:
        """Take a ``row`` that is the sum over the parameters of one kind in one step; others are
        passed over.
        """
        variance, S, N = row["minibatch_example"], row["examples"], row["population"]
        if row["parameter"] != WHOLE or math.isnan(variance):
            return
        signal = row["grad_sq"] - (variance if math.isnan(N) else (1 - S / N) * variance)
        average = self.averages.setdefault(row["kind"], Average())
        average.add(S * variance, signal, self.decay)
        self.sizes[row["kind"]], self.step = int(row["size"]), int(row["step"])

    def value(self, kind: str = ALL) -> tuple[float, float]:
        """B_simple of a kind, with its standard error; NaN before anything was measured."""
        if kind not in self.averages:
            return math.nan, math.nan
        return self.averages[kind].scale(self.decay)

    def table(self) -> pd.DataFrame:
        """Of each kind and of all: step, noise, signal and the noise scale with its standard error,
        at the last step.
        """
        lines = [
            (self.step, kind, *average.means, *average.scale(self.decay))
            for kind, average in self.averages.items()
        ]
        return pd.DataFrame(lines, columns=SCALES)

    def state_dict(self) -> dict[str, Any]:
        """All that it takes to go on."""
        averages = {kind: asdict(average) for kind, average in self.averages.items()}
        return {
            "decay": self.decay, "step": self.step, "sizes": dict(self.sizes), "averages": averages,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any], sizes: Mapping[str, int] = {}) -> None:
        """Go on from ``state``, a ``state_dict``. ``sizes`` are those of the kinds of this model's
        parameters, where nothing was measured of it yet. Raises ValueError for what is no such
        state, for another decay and for another model.
        """
        if missing := {"decay", "step", "sizes", "averages"} - set(state):
            raise ValueError(
                f"this is no state of a NoiseScale: it has no {min(missing)!r}; give what its"
                " state_dict() gave"
            )
        if state["decay"] != self.decay:
            raise ValueError(
                f"the state has decay={state['decay']:g}, not {self.decay:g}; make it by"
                f" NoiseScale(decay={state['decay']:g})"
            )
        own = dict(sizes) or self.sizes
        other = dict(state["sizes"])
        if own and other and own != other:
            kind = min(k for k in own.keys() | other.keys() if own.get(k) != other.get(k))
            raise ValueError(
                f"the state is of another model, with {other.get(kind, 0)} {kind} parameters where"
                f" this one has {own.get(kind, 0)}; load the state that was saved with this model"
            )
        self.step, self.sizes = state["step"], other
        self.averages = {
            kind: Average(**{**each, "spread": tuple(each["spread"]), "before": pair(each)})
            for kind, each in state["averages"].items()
        }


def scale_of_steps(rows: pd.DataFrame) -> pd.DataFrame:
    """B_simple of each step by itself, of ``rows`` as a probe's ``noise()`` gives them: a table as
    ``NoiseScale.add`` gives.

    Standard errors are those of the step's own examples, by the first-order change of the ratio
    noise / signal with both: how the two go together is known from the errors of ‖G‖², of the
    minibatch variance and of their difference. NaN where one of them is.
    """
    sums = rows[rows["parameter"] == WHOLE].sort_values("step", kind="stable")
    variance, C, S = sums["minibatch_example"], sums["grad_sq"], sums["examples"]
    left = 1 - (S / sums["population"]).fillna(0)  # of what is drawn without replacement
    signal = (C - left * variance).where(lambda s: s > 0)
    of_variance, of_C, of_signal = (
        sums[f"{name}_stderr"] ** 2 for name in ("minibatch_example", "grad_sq", "signal")
    )
    together = (of_C - of_signal - left**2 * of_variance) / (2 * left)  # of variance and signal
    relative = of_variance / variance**2 + of_signal / signal**2
    relative = (relative - 2 * together / (variance * signal)).clip(lower=0)
    B = S * variance / signal
    return pd.DataFrame(
        {
            "step": sums["step"], "kind": sums["kind"], "noise": S * variance, "signal": signal,
            "noise_scale": B, "noise_scale_stderr": B * relative**0.5,
        }
    ).reset_index(drop=True)  # fmt: skip


def pair(each: Mapping[str, Any]) -> tuple[float, float] | None:
    """Noise and signal of the step before, as a tuple: JSON gives a list."""
    return None if each["before"] is None else tuple(each["before"])
