"""What averaging several sketches buys: m of rate ρ beside one of rate mρ, on one layer's pair."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sketchvar.analysis.probe import Layer
from sketchvar.analysis.style import COLUMN, legend_above, look, plain_ticks, style
from sketchvar.estimators import Estimator, estimate, parse
from sketchvar.estimators.empirical import Measured
from sketchvar.estimators.moments import wide
from sketchvar.estimators.seeds import fold

COLUMNS = ["layer", "estimator", "rate", "count", "variance", "stderr", "draws", "one", "single"]


def averaging(
    layer: Layer,
    estimators: Sequence[str],
    rate: float,
    counts: Sequence[int],
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """One row per estimator and count m: the measured ``variance`` of the mean of m sketches of
    ``rate``, the closed forms of ``one`` sketch of rate m·rate, which keeps as much, and of a
    ``single`` sketch of ``rate``.

    Raises ValueError where m·rate exceeds 1.
    """
    x, y = layer.moments.pair
    lines = []
    for name in estimators:
        for count in counts:
            one = parse(name, count * rate).variance(layer.moments)
            found = averaged(parse(name, rate), count, x, y, draws, fold(seed, name, count))
            single = parse(name, rate).variance(layer.moments)
            numbers = (float(found.value), float(found.stderr), draws, float(one), float(single))
            lines.append((layer.name, name, rate, count, *numbers))
    return pd.DataFrame(lines, columns=COLUMNS)


def averaged(
    estimator: Estimator, count: int, x: Tensor, y: Tensor, draws: int, seed: int
) -> Measured:
    """The variance of the mean of ``count`` independent estimates of XᵀY, by ``draws`` of it."""
    exact = (wide(x).T @ wide(y)).double()
    errors = []
    for i in range(draws):
        total = sum(estimate(estimator, x, y, fold(seed, i, j)).double() for j in range(count))
        errors.append((total / count - exact).square().sum())
    each = torch.stack(errors)
    return Measured(each.mean(), each.std() / draws**0.5, draws)


def figure(rows: pd.DataFrame) -> Figure:
    """Variance over that of a single sketch, against the number of sketches; the line is one sketch
    as large.
    """
    style()
    figure, axes = plt.subplots(figsize=(COLUMN * 1.3, 3), layout="constrained")
    for i, (name, (colour, marker)) in enumerate(
        look(list(dict.fromkeys(rows["estimator"]))).items()
    ):
        part = rows[rows["estimator"] == name]
        axes.plot(part["count"], part["one"] / part["single"], color=colour, linewidth=1)
        bars = 2 * part["stderr"] / part["single"]
        places = part["count"] * 1.04 ** (i - 1)  # beside each other
        axes.errorbar(
            places, part["variance"] / part["single"], bars, fmt=marker, color=colour, label=name
        )
    counts = sorted(set(rows["count"]))
    axes.plot(counts, [1 / m for m in counts], "k--", linewidth=0.8, label="1 / m")
    text = (
        f"sketches of rate {rows['rate'].iloc[0]:g} that are averaged (points, ± 2 stderr),\nor one"
        " as large (lines)"
    )
    axes.set(xscale="log", yscale="log", xlabel=text, ylabel="variance / that of a single sketch")
    axes.set_xticks(counts, [str(m) for m in counts])
    axes.minorticks_off()
    plain_ticks(axes.yaxis)
    legend_above(figure, axes)
    return figure
