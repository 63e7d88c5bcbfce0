"""Totals of a plan: a table of one row per layer in, numbers out."""

from dataclasses import dataclass

import pandas as pd

CHOICE = ["estimator", "rate"]
COPY = ["input_of", *CHOICE]  # layers that have all three alike share one compressed copy


@dataclass(frozen=True)
class Totals:
    """Of all layers together: bytes kept, their fraction of what exact training keeps of the
    layers' inputs, and the ratio that the objective makes small.
    """

    kept_bytes: float
    fraction: float
    ratio: float


def sum_layers(chosen: pd.DataFrame, largest: bool = False) -> Totals:
    """Sum up rows of ``list_candidates``, one per layer; a copy that several layers share counts
    once, at the largest of its sizes. ``largest``: the ratio is that of the noisiest layer.
    """
    noise = chosen.drop_duplicates("layer")["noise"]
    kept = float(chosen.groupby(COPY)["kept_bytes"].max().sum())
    return Totals(kept, kept / sum_inputs(chosen), float(noise.max() if largest else noise.sum()))


def sum_inputs(table: pd.DataFrame) -> float:
    """Sum the bytes that exact training keeps of the layers' inputs, each input once."""
    return float(table.groupby("input_of")["x_bytes"].max().sum())
