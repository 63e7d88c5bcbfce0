"""The noise scale of a model and of each kind of its parameters: rows in, Figure out."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sketchvar.analysis.noise.scale import ALL
from sketchvar.analysis.style import (
    COLUMN,
    UNIT_LINE,
    in_paper_style,
    legend_above,
    look,
    plain_ticks,
)

LABELS = {"linear": "linear weights", "norm": "norm layers", "bias": "biases", ALL: "whole model"}


@in_paper_style
def noise_by_kind(table: pd.DataFrame, batch_size: float | None = None) -> Figure:
    """B_simple of the whole model (thick) and of each kind of parameter through training: a table
    that ``NoiseScale.add`` gives. Bars are one standard error, where it is known; steps at which
    the noise hides the gradient are left out.
    """
    figure, axes = plt.subplots(figsize=(COLUMN + 0.6, 2.6), layout="constrained")
    steps = sorted(set(table["step"]))
    kinds = [*(kind for kind in dict.fromkeys(table["kind"]) if kind != ALL), ALL]
    style = look(kinds)
    for i, kind in enumerate(kinds):
        part = table[(table["kind"] == kind) & table["noise_scale"].notna()]
        value, error = part["noise_scale"], part["noise_scale_stderr"].fillna(0.0)
        apart = 0.3 * ((i + 1) / len(kinds) - 0.5)
        axes.errorbar(
            part["step"].map(steps.index) + apart, value,
            [error.clip(upper=0.9 * value), error],  # a bar that reaches 0 has no end on this axis
            label=LABELS.get(kind, kind), color="black" if kind == ALL else style[kind][0],
            marker=style[kind][1], linewidth=1.6 if kind == ALL else 0.8, elinewidth=0.7,
        )  # fmt: skip
    if batch_size is not None:
        axes.axhline(batch_size, label="batch size", **UNIT_LINE)
    axes.set(
        xlabel="step (updates, evenly spaced)",
        ylabel="noise scale $B_{simple}$ (examples)",
        yscale="log",
    )
    axes.set_xticks(range(len(steps)), [str(step) for step in steps])
    plain_ticks(axes.yaxis)
    legend_above(figure, axes)
    return figure
