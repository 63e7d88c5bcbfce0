"""Peak memory by batch size and rate, ours beside what the paper shows."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sketchvar.analysis.paper.recorded import MEMORY
from sketchvar.analysis.style import COLUMN, plain_ticks, style


def figure(rows: pd.DataFrame) -> Figure:
    """Rows of ``bench memory``: peak over the plain step's against the rate, a line per batch; the
    paper's in grey.
    """
    style()
    figure, axes = plt.subplots(figsize=(COLUMN * 1.5, 3), layout="constrained")
    for i, (_, part) in enumerate(MEMORY.groupby(["task", "batch"], sort=False)):
        label = "paper: eight tasks, batch 16 to 256, ± 0.1 GiB" if i == 0 else None
        axes.plot(part["rate"], part["ratio"], color="0.75", linewidth=0.8, label=label)
    shown = rows[~rows["checkpointing"]]
    batches = sorted(set(shown["batch"]))
    names = [name for name in dict.fromkeys(shown["estimator"]) if name != "plain"]
    for batch, colour in zip(batches, sns.color_palette("colorblind", len(batches)), strict=True):
        for name, dashes in zip(names, ("-", "--", ":", "-."), strict=False):
            part = shown[
                (shown["batch"] == batch) & shown["estimator"].isin(["plain", name])
            ].sort_values("rate")
            axes.plot(
                part["rate"],
                part["ratio"],
                f"o{dashes}",
                color=colour,
                label=f"{name}, batch {batch}",
            )
    axes.set(
        xscale="log",
        xlabel="rate (fraction of X that is kept)",
        ylabel="peak memory / plain training's",
    )
    plain_ticks(axes.xaxis)
    axes.legend(fontsize=6)
    return figure
