"""Pictures of benches: rows in, Axes out."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from sketchvar.analysis.picture import Facet, picture
from sketchvar.analysis.style import PAGE, PALETTE, label_choice, plain_ticks


def by_shape(rows: pd.DataFrame, options: Mapping[str, Any]) -> list[Facet]:
    """A panel for each shape of a layer."""
    train = rows[rows["mode"] == "train"]
    names = list(train.groupby("estimator")["ratio"].min().sort_values().index)
    parts = train.groupby(["rows", "p", "q"], sort=False)
    return [Facet("{} × {} → {}".format(*shape), part, {"names": names}) for shape, part in parts]


@picture(
    "estimator", "rate", "mode", "rows", "p", "q", "ratio", "low", "high", "theory",
    height=lambda rows: 1.2 + 0.16 * rows["estimator"].nunique(), split=by_shape,
)  # fmt: skip
def layer_times(ax: Axes, rows: pd.DataFrame, names: list[str] | None = None) -> None:
    """Draw time over nn.Linear's by estimator, median and quartiles, a panel per shape, a colour
    per rate with its theory as a line; in the order of ``names``.
    """
    names = names or list(dict.fromkeys(rows["estimator"]))
    for rate, colour in zip(sorted(set(rows["rate"])), PALETTE, strict=False):
        part = rows[rows["rate"] == rate]
        bars = [part["ratio"] - part["low"], part["high"] - part["ratio"]]
        places = [names.index(name) for name in part["estimator"]]
        points = {"fmt": "o", "color": colour, "markersize": 3, "elinewidth": 0.8}
        label = f"rate {rate:g}, theory as a line"
        ax.errorbar(part["ratio"], places, xerr=bars, label=label, **points)
        ax.axvline(part["theory"].iloc[0], color=colour, linewidth=0.8)
    ax.set(xscale="log", yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    ax.set_xlabel("time of forward and backward / nn.Linear (median, quartiles)")
    plain_ticks(ax.xaxis)


def by_batch(rows: pd.DataFrame, options: Mapping[str, Any]) -> list[Facet]:
    """A panel for each batch size."""
    return [
        Facet(f"batch {batch} × {part['length'].iloc[0]} tokens", part)
        for batch, part in rows.groupby("batch", sort=False)
    ]


@picture(
    "estimator", "rate", "batch", "length", "checkpointing", "ratio", "theory",
    width=PAGE / 2, height=lambda rows: 1.1 + 0.15 * len(rows), split=by_batch,
)  # fmt: skip
def peak_memory(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw peak memory over the plain step's by choice, a panel per batch size, theory as a mark on
    it.
    """
    names = [
        name if name == "plain" else label_choice(label, rate)
        for name, label, rate in zip(rows["estimator"], rows["label"], rows["rate"], strict=True)
    ]
    choices = list(dict.fromkeys(names))
    rows = rows.assign(place=[choices.index(name) for name in names])
    again = rows["checkpointing"].astype(bool)
    some = again & rows.get("selective", pd.Series(False, rows.index)).astype(bool)
    kinds = {
        "activations kept": rows[~again],
        "selective checkpointing": rows[some],
        "activation checkpointing": rows[again & ~some],
    }
    shown = {kind: part for kind, part in kinds.items() if len(part)}
    high = 0.8 / len(shown)
    for i, (kind, part) in enumerate(shown.items()):
        places = part["place"] + high * (i - (len(shown) - 1) / 2)
        colour = PALETTE[list(kinds).index(kind)]
        ax.barh(places, part["ratio"], height=0.95 * high, color=colour, label=kind)
    plain = kinds["activations kept"]
    label, at = "theory, activations kept", plain["place"] - high * (len(shown) - 1) / 2
    ax.plot(plain["theory"], at, "k|", markersize=8, label=label)
    ax.set(yticks=range(len(choices)), yticklabels=choices, ylim=(len(choices) - 0.4, -0.6))
    ax.set_xlabel("peak memory / plain")
