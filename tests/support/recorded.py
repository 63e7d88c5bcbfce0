"""Final values of the recorded training runs, and their differences with pooled intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

DATA = Path(__file__).parents[2] / "data"
METHOD = ["estimator", "rate", "batch"]


@dataclass(frozen=True)
class Difference:
    """A mean difference with the half width of its 95 % interval, and its two-sided p."""

    mean: float
    half: float
    p: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.half:.3f}".replace("-", "−")


@dataclass(frozen=True)
class Finals:
    """Final values, a row per method and a column per seed: value = method + seed + residual.

    The residual is pooled over all methods and seeds (two-way layout without repetitions), which
    takes its spread to be the same for all methods.
    """

    table: pd.DataFrame

    @classmethod
    def read(cls, task: str) -> "Finals":
        """Validation losses of a task in data/train; exact training for as many examples
        (data/equal-time), where it was recorded, stands below the estimator ``equal-examples``.
        """
        runs = [final(DATA / "train" / task)]
        if (DATA / "equal-time" / task).exists():
            runs.append(final(DATA / "equal-time" / task).assign(estimator="equal-examples"))
        return cls(pd.concat(runs).pivot_table(index=METHOD, columns="seed", values="validation"))

    @property
    def df(self) -> int:
        methods, seeds = self.table.shape
        return (methods - 1) * (seeds - 1)

    @property
    def sd(self) -> float:
        """The pooled standard deviation of one value."""
        v = self.table.to_numpy()
        residual = v - v.mean(1, keepdims=True) - v.mean(0, keepdims=True) + v.mean()
        return float(sqrt((residual**2).sum() / self.df))

    def contrast(self, weights: pd.Series) -> Difference:
        """The difference Σ weight × mean of method; the weights sum to 0."""
        mean = float((weights * self.table.mean(axis=1)[weights.index]).sum())
        error = self.sd * sqrt(float((weights**2).sum()) / self.table.shape[1])
        p = 2 * student.sf(abs(mean) / error, self.df)
        return Difference(mean, float(student.ppf(0.975, self.df)) * error, float(p))

    def detectable(self, power: float = 0.8) -> float:
        """The least difference of two methods that a test at 0.05 would show with this power."""
        quantiles = student.ppf(0.975, self.df) + student.ppf(power, self.df)
        return float(quantiles * self.sd * sqrt(2 / self.table.shape[1]))

    def against_exact(self, method: tuple, batch: float) -> Difference:
        """A method's value less that of exact training on ``batch``, by straight lines in
        log(batch) between the batches that were trained; beyond them the nearest stands.
        """
        batches = sorted(batch for name, _, batch in self.table.index if name == "exact")
        at = [np.interp(np.log(batch), np.log(batches), one) for one in np.eye(len(batches))]
        index = pd.MultiIndex.from_tuples([("exact", 1.0, b) for b in batches], names=METHOD)
        return self.contrast(plus_one(method).sub(pd.Series(at, index), fill_value=0))

    def methods(self) -> list[tuple]:
        """Those that sketch: (estimator, rate, batch)."""
        return [m for m in self.table.index if m[0] not in ("exact", "equal-examples")]


def plus_one(method: tuple) -> pd.Series:
    """Weight 1 of one method."""
    return pd.Series([1.0], pd.MultiIndex.from_tuples([method], names=METHOD))


def final(folder: Path) -> pd.DataFrame:
    """The last evaluated step of every run that is not checkpointed (those repeat exact ones)."""
    rows = pd.read_parquet(folder / "rows.parquet")
    last = rows.sort_values("step", kind="stable").drop_duplicates("cell", keep="last")
    return last[~last["checkpointing"]]


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values of a family (Holm 1979)."""
    order = np.argsort(p)
    steps = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted
