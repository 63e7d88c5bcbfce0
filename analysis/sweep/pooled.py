"""Finals (a frozen dataclass): final values by method and seed, and the differences of methods with
a residual pooled over all of them. holm(): for as many intervals as are drawn.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import nct
from scipy.stats import t as student

LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Difference:
    """A difference with the half width of its 95 % interval, and its two-sided p."""

    mean: float
    half: float
    p: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.half:.3f}".replace("-", "−")


@dataclass(frozen=True, eq=False)
class Finals:
    """Final values, a row per method and a column per seed, NaN where a run is missing:
    value = method + seed + residual, by least squares (a two-way layout without repetitions).

    The residual is pooled over all methods and seeds, which takes its spread to be the same for all
    of them: with three seeds a method has 2 degrees of freedom by itself, ten have 18 together.
    """

    table: pd.DataFrame

    @cached_property
    def fit(self) -> tuple[np.ndarray, np.ndarray, float, int]:
        """The methods' effects, their covariance in units of the residual's variance, the sum of
        squared residuals, and its degrees of freedom.
        """
        methods, seeds = self.table.shape
        design = np.concatenate(
            [np.repeat(np.eye(methods), seeds, 0), np.tile(np.eye(seeds), (methods, 1))], 1
        )
        values = self.table.to_numpy(float).ravel()
        known = np.isfinite(values)
        design, values = design[known], values[known]
        inverse = np.linalg.pinv(design.T @ design)
        effects = inverse @ design.T @ values
        rest = float(((values - design @ effects) ** 2).sum())
        df = len(values) - int(np.linalg.matrix_rank(design))
        return effects[:methods], inverse[:methods, :methods], rest, df

    @property
    def df(self) -> int:
        """Degrees of freedom of the residual."""
        return self.fit[3]

    @property
    def sd(self) -> float:
        """The pooled standard deviation of one value; NaN without degrees of freedom."""
        return (self.fit[2] / self.df) ** 0.5 if self.df else nan

    def contrast(self, weights: pd.Series) -> Difference:
        """The difference Σ weight × effect of method; the weights sum to 0."""
        effects, covariance = self.fit[:2]
        at = self.table.index.get_indexer_for(weights.index)
        w = np.zeros(len(effects))
        np.add.at(w, at, weights.to_numpy(float))
        mean, error = float(w @ effects), self.sd * float(w @ covariance @ w) ** 0.5
        p = 2 * student.sf(abs(mean) / error, self.df) if error else nan
        return Difference(mean, float(student.ppf(1 - LEVEL / 2, self.df)) * error, float(p))

    def differ(self, method: Hashable, other: Hashable) -> Difference:
        """The difference of two methods."""
        return self.contrast(pd.Series([1.0, -1.0], index=self.index_of(method, other)))

    def differ_from_exact(self, method: Hashable, batch: float) -> Difference:
        """A method's value less that of exact training on ``batch``, by straight lines in
        log(batch) between the batches that were trained; beyond them the nearest stands.
        """
        batches = sorted(batch for name, _, batch in self.table.index if name == "exact")
        at = [np.interp(np.log(batch), np.log(batches), one) for one in np.eye(len(batches))]
        names = self.index_of(method, *(("exact", 1.0, each) for each in batches))
        return self.contrast(pd.Series([1.0, *(-each for each in map(float, at))], index=names))

    def index_of(self, *methods: Hashable) -> pd.Index:
        """Methods as an index of the table's kind."""
        index = self.table.index
        return index.take(index.get_indexer_for(pd.Index(methods)))

    def detectable(self, count: int = 1, power: float = POWER) -> float:
        """The least difference of two methods that a test at ``LEVEL`` / ``count`` would have shown
        with this power: the power of these seeds, by the noncentral t distribution.
        """
        if not self.df:
            return nan
        beyond = student.isf(LEVEL / count / 2, self.df)

        def miss(shift: float) -> float:
            return float(nct.sf(beyond, self.df, shift)) - power  # the far tail is next to nothing

        shift = brentq(miss, 0.0, 4 * beyond + 10)
        return float(shift * self.sd * (2 / self.table.shape[1]) ** 0.5)


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust the p-values of a family: those of at most a are rejected at a joint level of a; NaN
    is no member.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    values = np.asarray(p, float)
    order = np.argsort(values)[: int(np.isfinite(values).sum())]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(values), nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted
