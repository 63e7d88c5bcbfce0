"""Figures of forks and of coherence: effective batches beside predictions, and how much of a cost
is there because weights err together.
"""

import pandas as pd
from matplotlib.axes import Axes

from sketchvar.analysis.noise.select import choose_step
from sketchvar.analysis.picture import picture
from sketchvar.analysis.picture.select import add_rate
from sketchvar.analysis.style import PAGE, PALETTE, UNIT_LINE, Style, plain_ticks

PREDICTED = {  # what is predicted of the effective batch: its label, and how it is drawn
    "by_variance": ("1 / (1 + variance ratio)", "x"),
    "by_metric": ("1 / (1 + metric ratio)", "+"),
    "by_cost": ("1 / (1 + cost ratio)", "o"),
    "by_both": ("noise and progress joined", "D"),
}


def name_noise(rows: pd.DataFrame) -> list[str]:
    """A noise with its rate, and whether all layers have one seed."""
    labels = add_rate(rows)["label"]
    return [
        label + (", one seed" if seeds == "one" else "")
        for label, seeds in zip(labels, rows["seeds"], strict=True)
    ]


@picture(
    "noise", "rate", "seeds", "coherence", "coherence_stderr",
    of="noise", height=lambda rows: 0.9 + 0.2 * len(choose_step(rows)),
)  # fmt: skip
def coherence_of_noise(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw how much of each noise's one-step cost is there because weights err together, ± 2
    standard errors, the last step of ``coherence.parquet``.
    """
    rows = choose_step(rows)
    bars = 2 * rows["coherence_stderr"]
    ax.errorbar(rows["coherence"], range(len(rows)), xerr=bars, fmt="o", color=PALETTE[0])
    ax.axvline(0, **UNIT_LINE)
    ax.set_xlabel("coherence: 1 − cost where tensors err apart / cost, ± 2 stderr")
    ax.set(yticks=range(len(rows)), yticklabels=name_noise(rows), ylim=(len(rows) - 0.4, -0.6))


@picture(
    "estimator", "rate", "tuned", "effective", "low", "high",
    width=0.8 * PAGE, height=lambda rows: 1.2 + 0.28 * len(choose_tuned(rows)),
)  # fmt: skip
def effective_batches_and_predictions(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the effective batch that forks were read off at, with its interval, beside what was
    predicted of it; methods at their own best learning rate, the last step of
    ``effective.parquet``. Noise and progress joined, which often says what the cost alone does, is
    an open mark around it.
    """
    rows = choose_tuned(rows)
    ax.hlines(rows.index, rows["low"], rows["high"], color="black", linewidth=4, alpha=0.35)
    ax.plot(rows["effective"], rows.index, "k|", markersize=10, label="forks, 95 %")
    for i, (field, (label, marker)) in enumerate(PREDICTED.items()):
        if field in rows and rows[field].notna().any():
            over: Style = {"markersize": 8, "fillstyle": "none"} if field == "by_both" else {}
            ax.plot(rows[field], rows.index, marker, color=PALETTE[i], label=label, **over)
    ax.set(xscale="log", xlabel="effective batch / batch", ylim=(len(rows) - 0.4, -0.6))
    ax.set_yticks(rows.index, add_rate(rows)["label"])
    plain_ticks(ax.xaxis)


def choose_tuned(rows: pd.DataFrame) -> pd.DataFrame:
    """Estimators at their own best learning rate, at the last step."""
    return only_tuned(choose_step(rows))


def only_tuned(rows: pd.DataFrame) -> pd.DataFrame:
    """Estimators at their own best learning rate."""
    tuned = rows["tuned"].astype(bool) & (rows["estimator"] != "exact")
    return rows[tuned].reset_index(drop=True)
