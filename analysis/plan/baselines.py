"""Baselines of a plan: one choice for all layers, and uniform rows, which are a smaller batch of
tokens.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from sketchvar.analysis.frontier.best import BASELINE
from sketchvar.analysis.frontier.rows import STEPS
from sketchvar.analysis.plan.candidates import list_candidates
from sketchvar.analysis.plan.objective import SUM, Objective
from sketchvar.analysis.plan.totals import CHOICE, Totals, sum_layers
from sketchvar.estimators import UniformRows


class Single(NamedTuple):
    """One estimator at one rate in all layers: ``chosen`` has the row of each layer."""

    estimator: str
    rate: float
    totals: Totals
    chosen: pd.DataFrame


def list_singles(table: pd.DataFrame, largest: bool = False) -> list[Single]:
    """List every choice in a table of ``list_candidates`` as made for all layers that can take it;
    the others stay exact.
    """
    found, plain = [], table[table["estimator"] == "exact"]
    for _, part in table.groupby(CHOICE, sort=False):
        chosen = pd.concat([plain, part]).drop_duplicates("layer", keep="last")
        what = part["estimator"].iloc[0], part["rate"].iloc[0]
        found.append(Single(*what, sum_layers(chosen, largest), chosen))
    return found


def find_best_single(
    found: list[Single], fraction: float = 1.0, ratio: float = np.inf
) -> Single | None:
    """Find the one of least ratio within ``fraction`` of the bytes; or, where ``ratio`` is given,
    of least bytes within it.

    Of several alike in that, the one with less of the other. None where none fits.
    """
    order = ("ratio", "fraction") if ratio == np.inf else ("fraction", "ratio")
    fits = [
        single
        for single in found
        if single.totals.fraction <= fraction and single.totals.ratio <= ratio
    ]
    return min(
        fits, key=lambda single: [getattr(single.totals, name) for name in order], default=None
    )


@dataclass(frozen=True, eq=False)
class Uniform:
    """Uniform rows at one rate, which need not be a measured one, in all layers but those that stay
    exact.

    ``rows``: one per layer and step, with ``unit``: at k of n rows the number of the layer is
    (n − k)/k times that, in every metric and for its cost.
    """

    rows: pd.DataFrame
    dtype: torch.dtype
    objective: Objective = SUM

    @classmethod
    def of(
        cls, measured: pd.DataFrame, dtype: torch.dtype, objective: Objective = SUM
    ) -> "Uniform | None":
        """From a table of ``measure_layers``; None where no rate below 1 was measured in every
        layer and step.
        """
        free = measured.groupby("layer")["estimator"].transform("nunique") > 1
        stays = measured[~free].assign(unit=0.0, unit_stderr=0.0, free=False)
        rows = measured[free & (measured["estimator"] == BASELINE)]
        k = count_kept(rows["rate"], rows["rows"])
        rows, k = rows[rows["rows"] > k], k[rows["rows"] > k]
        scale = k / (rows["rows"] - k)
        rows = rows.assign(
            unit=scale * rows["each"], unit_stderr=scale * rows["each_stderr"], free=True
        )
        rows = pd.concat([rows, stays]).drop_duplicates(["layer", "step"])
        every = len(rows) == len(measured.drop_duplicates(["layer", "step"]))
        return cls(rows, dtype, objective) if every else None

    def measured(self, rate: float) -> pd.DataFrame:
        """At this rate, as a table of ``measure_layers``; exact where it would keep no less than
        X.
        """
        n, p = self.rows["rows"], self.rows["p"]
        k = count_kept([rate] * len(n), n)
        kept = np.array(
            [
                UniformRows(rate).kept_bytes(int(a), int(b), self.dtype)
                for a, b in zip(n, p, strict=True)
            ]
        )
        less = self.rows.groupby("layer")["x_bytes"].transform("mean") > pd.Series(
            kept, self.rows.index
        ).groupby(self.rows["layer"]).transform("mean")
        less &= self.rows["free"]
        scale = (n - k) / k
        return self.rows.assign(
            estimator=np.where(less, BASELINE, "exact"),
            rate=np.where(less, rate, 1.0),
            kept_bytes=np.where(less, kept, self.rows["x_bytes"]),
            each=np.where(less, scale * self.rows["unit"], 0.0),
            each_stderr=np.where(less, scale * self.rows["unit_stderr"], 0.0),
        )

    def at(self, rate: float) -> Single:
        """At this rate, over all steps."""
        measured = self.measured(rate)
        exact = measured.assign(
            estimator="exact", rate=1.0, each=0.0, kept_bytes=measured["x_bytes"]
        )
        both = pd.concat([exact, measured[measured["estimator"] != "exact"]])
        chosen = list_candidates(both, self.objective).drop_duplicates("layer", keep="last")
        return Single(BASELINE, rate, sum_layers(chosen, self.objective.largest), chosen)

    def within(self, fraction: float = 1.0, ratio: float = np.inf) -> Single | None:
        """At the largest rate within ``fraction`` of the bytes; where ``ratio`` is given, at the
        smallest within it.
        """
        rates = [step / STEPS for step in range(1, STEPS + 1)]
        if ratio < np.inf:
            return self.at(
                rates[bisect_left(rates, -ratio, key=lambda rate: -self.at(rate).totals.ratio)]
            )
        place = bisect_right(rates, fraction, key=lambda rate: self.at(rate).totals.fraction)
        return self.at(rates[place - 1]) if place else None


def count_kept(rates: Iterable[float], rows: Iterable[int]) -> np.ndarray:
    """Count how many of so many rows uniform rows keep at each rate."""
    return np.array([UniformRows(rate).k(int(n)) for rate, n in zip(rates, rows, strict=True)], int)
