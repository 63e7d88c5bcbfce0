"""Pictures of the GPU suite: rows in, Figure out."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sketchvar.analysis.style import PAGE, UNIT_LINE, in_paper_style, legend_above, look


def split_by_model(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Split the rows into groups of at most three shapes, in the order they were measured."""
    shapes = list(rows.groupby(["rows", "p", "q"], sort=False))
    return [pd.concat([part for _, part in shapes[i : i + 3]]) for i in range(0, len(shapes), 3)]


@in_paper_style
def throughput(rows: pd.DataFrame) -> Figure:
    """Examples a second against peak memory, one panel per task, checkpointed steps as hollow
    marks, those that keep products as half ones.
    """
    tasks = list(rows.groupby("task", sort=False))
    across = min(len(tasks), 4)
    down = -(-len(tasks) // across)
    size = (PAGE, 0.6 + 1.5 * down)
    figure, grid = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    looks = look(list(dict.fromkeys(rows["estimator"])))
    for axes, (task, part) in zip(grid.flat, tasks, strict=False):
        for name, (colour, marker) in looks.items():
            mine = part[part["estimator"] == name]
            for (again, selective), some in mine.groupby(["checkpointing", "selective"]):
                label = name + (", checkpointed" if again else "")
                label += " but products" if selective else ""
                axes.plot(
                    some["peak"] / 1e9,
                    some["batch"] / some["seconds"],
                    marker,
                    color=colour,
                    fillstyle="left" if selective else "none" if again else "full",
                    label=label,
                )
        axes.set(title=f"{task}: {part['batch'].iloc[0]} × {part['length'].iloc[0]} tokens")
    for axes in list(grid.flat)[len(tasks) :]:
        axes.set_visible(False)
    figure.supxlabel("peak memory, GB", fontsize=8)
    figure.supylabel("examples / s", fontsize=8)
    legend_above(figure, grid[0, 0])
    return figure


@in_paper_style
def kernels(rows: pd.DataFrame) -> Figure:
    """Fraction of the limit that each kernel reaches, PyTorch's own operators for the same beside
    it.
    """
    rows = rows[~rows["kernel"].isin(["copy", "gemm"])]
    label = rows["kernel"] + [f" {rate:g}" if rate < 1 else "" for rate in rows["rate"]]
    paths = {
        "as estimators run": rows["of_limit"],
        "PyTorch's operators": rows["limit"] / rows["plain"],
    }
    table = pd.concat(
        [rows.assign(label=label, path=path, reached=value) for path, value in paths.items()]
    )
    parts = list(table.groupby("dtype", sort=False))
    size = (PAGE, 1.0 + 0.25 * label.nunique())
    figure, grid = plt.subplots(
        1, len(parts), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (dtype, part) in zip(grid[0], parts, strict=True):
        sns.barplot(part, x="reached", y="label", hue="path", ax=axes)
        axes.axvline(1, **UNIT_LINE)
        axes.set(title=str(dtype), xlabel="", ylabel="")
    figure.supxlabel("limit by measured copy bandwidth and GEMM rate / time", fontsize=8)
    legend_above(figure, grid[0, 0])
    for axes in grid[0]:
        if axes.get_legend():
            axes.get_legend().remove()
    return figure
