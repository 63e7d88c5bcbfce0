"""Totals of a plan: a table of one row per layer in, numbers out."""

from dataclasses import dataclass

import pandas as pd

CHOICE = ["estimator", "rate"]
COPY = ["input_of", *CHOICE]  # layers that have all three alike share one compressed copy


@dataclass(frozen=True)
class Totals:
    """Of all layers together: bytes kept, their fraction of what exact training keeps of the
    layers' inputs, and the ratio Σ variance / Σ minibatch variance (unit: example).
    """

    kept_bytes: float
    fraction: float
    ratio: float

    @property
    def batch_fraction(self) -> float:
        """The effective batch fraction: a step is as noisy as an exact one on this fraction of its
        batch.
        """
        return 1 / (1 + self.ratio)


def sum_layers(chosen: pd.DataFrame) -> Totals:
    """Sum up a table with one row per layer; a copy that several layers share counts once, at the
    largest of its sizes.
    """
    once = chosen.drop_duplicates("layer")
    kept = float(chosen.groupby(COPY)["kept_bytes"].max().sum())
    return Totals(
        kept, kept / sum_inputs(chosen), float(once["variance"].sum() / once["minibatch"].sum())
    )


def sum_inputs(table: pd.DataFrame) -> float:
    """Sum the bytes that exact training keeps of the layers' inputs, each input once."""
    return float(table.groupby("input_of")["x_bytes"].max().sum())
