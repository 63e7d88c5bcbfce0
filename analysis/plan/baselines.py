"""Baselines of a plan: one choice for all layers, and uniform rows, which are a smaller batch."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from sketchvar.analysis.frontier.best import BASELINE
from sketchvar.analysis.frontier.rows import STEPS
from sketchvar.analysis.plan.candidates import list_candidates
from sketchvar.analysis.plan.programme import minimize_noise
from sketchvar.analysis.plan.totals import CHOICE, COPY, Totals, sum_inputs, sum_layers
from sketchvar.estimators import UniformRows

CURVES = ("plan", "best single choice", "uniform rows, any rate")


class Single(NamedTuple):
    """One estimator at one rate in all layers."""

    estimator: str
    rate: float
    totals: Totals


def list_singles(table: pd.DataFrame) -> list[Single]:
    """List every choice in a table of ``list_candidates`` as made for all layers that can take it;
    the others stay exact.
    """
    found, plain = [], table[table["estimator"] == "exact"]
    for _, part in table.groupby(CHOICE, sort=False):
        chosen = pd.concat([plain, part]).drop_duplicates("layer", keep="last")
        found.append(Single(part["estimator"].iloc[0], part["rate"].iloc[0], sum_layers(chosen)))
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
    ``exact``.

    ``rows``: one per layer and step, with ``each``: at k of n rows the variance is (n − k)/k times
    that.
    """

    rows: pd.DataFrame
    dtype: torch.dtype
    exact: Collection[str] = ()

    @classmethod
    def of(
        cls, rows: pd.DataFrame, dtype: torch.dtype, exact: Collection[str] = ()
    ) -> "Uniform | None":
        """From the rows of a run; None where no rate below 1 was measured in every layer and
        step.
        """
        measured = rows[rows["estimator"] == BASELINE]
        k = count_kept(measured["rate"], measured["rows"])
        measured = measured.assign(each=measured["variance"] * k / (measured["rows"] - k))[
            measured["rows"] > k
        ]
        measured = measured.drop_duplicates(["layer", "step"])
        every = len(measured) == len(rows.drop_duplicates(["layer", "step"]))
        return cls(measured, dtype, exact) if every else None

    def at(self, rate: float) -> Single:
        """At this rate; exact where it would keep no less than X."""
        n, p = self.rows["rows"], self.rows["p"]
        k = count_kept([rate] * len(n), n)
        kept = [
            UniformRows(rate).kept_bytes(int(a), int(b), self.dtype)
            for a, b in zip(n, p, strict=True)
        ]
        changed = self.rows.assign(
            rate=rate, kept_bytes=kept, variance=self.rows["each"] * (n - k) / k
        )
        table = list_candidates(changed, self.dtype, self.exact).drop_duplicates(
            "layer", keep="last"
        )
        return Single(BASELINE, rate, sum_layers(table))

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


def trace_curves(table: pd.DataFrame, uniform: Uniform | None, count: int = 8) -> pd.DataFrame:
    """Trace total ratio against memory: method (of ``CURVES``), fraction and ratio, rising in
    bytes.

    At ``count`` budgets from the least possible to three quarters of X's bytes, evenly spaced in
    their logarithm, and at those that the best single choices just fit.
    """
    copies = table.groupby(COPY)["kept_bytes"].max()
    least = copies.groupby("input_of").min().sum() / sum_inputs(table)
    found, lines = list_singles(table), []
    best = {
        each
        for single in found
        if (each := find_best_single(found, single.totals.fraction)) is not None
    }
    fits = {single.totals.fraction for single in best if single.estimator != "exact"}
    for budget in sorted(fits | set(np.geomspace(min(1.001 * least, 0.75), 0.75, count))):
        lines.append((CURVES[0], sum_layers(minimize_noise(table, budget))))
        if (single := find_best_single(found, budget)) is not None:
            lines.append((CURVES[1], single.totals))
        if uniform is not None:
            lines.append((CURVES[2], uniform.at(budget).totals))
    columns = ["method", "fraction", "ratio"]
    return pd.DataFrame(
        [(name, t.fraction, t.ratio) for name, t in lines], columns=columns
    ).drop_duplicates()
