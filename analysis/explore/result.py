"""Comparison and Frontier: a table of estimators on one pair, with its picture."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sketchvar.analysis.explore import figures
from sketchvar.analysis.frontier.best import average, find_best, merge_lines
from sketchvar.analysis.frontier.figure import frontier as draw_frontier

SHOWN = ["estimator", "rate", "share", "fraction", "variance", "measured", "stderr"]
SHOWN += ["ratio", "ratio_stderr"]


@dataclass(frozen=True)
class Result(ABC):
    """``table`` has all columns (docs/columns.md); what is shown has the main ones."""

    table: pd.DataFrame

    @abstractmethod
    def plot(self, **options: Any) -> Any:
        """Draw it."""

    @property
    def shown(self) -> pd.DataFrame:
        """The main columns, without those that are empty."""
        kept = [name for name in SHOWN if name in self.table]
        return self.table[kept].dropna(axis=1, how="all")

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return self.shown.to_string(index=False, float_format="{:.4g}".format)

    def _repr_html_(self) -> str:
        return self.shown.to_html(index=False, float_format="{:.4g}".format)


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Estimators at their rates, a row of ``table`` each: of ``compare`` and ``variance``."""

    def plot(self, **options: Any) -> Any:
        """Draw ``plot.ratio_by_bytes``, whose options these are: ``ax=``, ``title=``."""
        return figures.ratio_by_bytes(self.table, **options)


@dataclass(frozen=True, repr=False)
class Frontier(Result):
    """Every estimator at equal bytes, a row of ``table`` each: of ``frontier``."""

    def plot(self, **options: Any) -> Any:
        """Draw ``plot.frontier``, whose options these are."""
        return draw_frontier(merge_lines(average(self.table)), **options)

    def best(self, budget: float, count: int = 3) -> pd.DataFrame:
        """The ``count`` estimators of least ratio that keep at most ``budget`` of X's bytes, a
        part of 1; no oracles, and none that are biased.
        """
        found = find_best(average(self.table), budget, count)
        return found[["estimator", "fraction", "ratio", "ratio_stderr"]].reset_index(drop=True)
