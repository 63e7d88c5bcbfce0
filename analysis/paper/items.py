"""ITEMS: every figure of the paper, corrected, and every question of its reviewers: how its rows
are made and how they are drawn.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sketchvar.analysis import paper

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MATMULS = ("gaussian", "rademacher", "dct")
BATCH_OR_FEATURE = (
    "uniform-rows",
    "countsketch",
    "gaussian",
    "feature-columns",
    "feature-rademacher",
)
QUANTISED = (
    "rounding:1",
    "rounding:2",
    "rounding:4",
    "feature-gaussian+rounding:2",
    "uniform-rows",
    "countsketch",
)
FINE = {"estimators": ("gaussian",), "rates": (0.5,)}


@dataclass(frozen=True)
class Drawn:
    """What of an item is drawn, where it is not all: a layer (None: one in the middle), a rate."""

    layer: str | None
    rate: float


@dataclass(frozen=True)
class Item:
    """One figure: which ``work`` makes its rows, in which file of a folder they are, how they are
    drawn. ``defaults`` are options in which the work differs from its usual ones.
    """

    about: str
    work: str
    rows: str
    draw: Callable[["pd.DataFrame", Drawn], "Figure"]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()  # where one task is not enough
    panels: bool = False  # whether it draws several tasks side by side
    say: Callable[["pd.DataFrame"], tuple[str, ...]] = lambda rows: ()


def draw_curves(rows: "pd.DataFrame", drawn: Drawn) -> "Figure":
    """Validation loss through training."""
    from sketchvar.analysis.plot import validation_curves

    return validation_curves(rows)


def draw_variance(rows: "pd.DataFrame", drawn: Drawn) -> "Figure":
    """The paper's quantities beside the true ones, in one layer of a study."""
    found, layer = paper.variance.choose_layer(rows, drawn.layer)
    return paper.figures.variance(found[found["rate"] == drawn.rate], layer)


def draw_layers(rows: "pd.DataFrame", drawn: Drawn) -> "Figure":
    """Time of layers."""
    from sketchvar.analysis.plot import layer_times

    return layer_times(rows)


ITEMS: dict[str, Item] = {
    "score": Item(
        "final score by rate, with intervals over seeds",
        "sweep", "summary.parquet", lambda rows, drawn: paper.trained_figures.score(rows),
        {"estimators": ("gaussian",), "rates": (0.5, 0.2, 0.1), "fractions": ()}, panels=True,
    ),
    "matmuls": Item(
        "scores and times of different random matrices, beside the paper's",
        "sweep", "summary.parquet", lambda rows, drawn: paper.trained_figures.matmuls(rows),
        {"estimators": MATMULS, "rates": (0.5, 0.2, 0.1), "fractions": ()},
    ),
    "curves": Item(
        "validation loss through training",
        "sweep", "rows.parquet", draw_curves, {"fractions": ()},
    ),
    "memory": Item(
        "peak memory by batch size and rate, beside the paper's",
        "memory", "memory.parquet", lambda rows, drawn: paper.figures.memory(rows),
        {"estimators": ("gaussian",), "rates": (0.5, 0.2, 0.1), "batch": (8, 16, 32)},
    ),
    "throughput": Item(
        "throughput of training steps by rate, beside the paper's",
        "throughput", "rows.parquet", lambda rows, drawn: paper.figures.throughput(rows),
        {"estimators": (*MATMULS, "countsketch", "uniform-rows"), "rates": (0.5, 0.2, 0.1)},
    ),
    "variance": Item(
        "D²_SGD, D²_RMM and their ratio through training, as the paper computes them, corrected,"
        " and the bound",
        "study", "rows.parquet",
        draw_variance,
        FINE | {"batch_size": 64}, say=lambda rows: paper.variance.count_bounds(rows),
    ),
    "axis": Item(
        "compress the batch axis or the feature axis?",
        "frontier", "rows.parquet", lambda rows, drawn: paper.probed_figures.by_kept(rows),
        {"estimators": BATCH_OR_FEATURE, "rates": (0.5, 0.25, 0.125, 0.0625), "draws": 0},
    ),
    "quantised": Item(
        "quantised activations (1, 2, 4 bits) and EXACT, at equal bytes",
        "frontier", "rows.parquet", lambda rows, drawn: paper.probed_figures.by_kept(rows),
        {"estimators": QUANTISED, "rates": (0.25, 0.125, 0.0625, 0.03), "draws": 16},
    ),
    "scratch": Item(
        "does a step train like one on 1 / (1 + ratio) of the batch, from scratch and fine-tuning?",
        "sweep", "predictions.parquet", lambda rows, drawn: paper.trained_figures.predicted(rows),
        tasks=("stdlib-lm", "glue/cola"), panels=True,
    ),
    "architectures": Item(
        "a vision transformer and a convolutional network",
        "sweep", "summary.parquet", lambda rows, drawn: paper.trained_figures.differences(rows),
        tasks=("cifar10/vit", "cifar10/conv"), panels=True,
    ),
    "depth": Item(
        "does the ratio grow with depth?",
        "study", "rows.parquet",
        lambda rows, drawn: paper.probed_figures.by_depth(rows, drawn.rate),
        {"estimators": ("gaussian", "countsketch", "uniform-rows", "rounding:2"), "rates": (0.1,)},
    ),
    "damage": Item(
        "does the damage of a sketch depend on the depth where it is?",
        "damage", "rows.parquet", lambda rows, drawn: paper.trained_figures.damage(rows),
        {"estimators": ("gaussian", "uniform-rows"), "rates": (0.1,), "fractions": ()},
    ),
    "averaging": Item(
        "what does averaging several sketches buy?",
        "averaging", "rows.parquet", lambda rows, drawn: paper.figures.averaging(rows),
        {"estimators": ("gaussian", "countsketch", "uniform-rows"), "draws": 200},
    ),
    "time": Item(
        "what a sketched layer costs in time",
        "layer", "layer.parquet", draw_layers,
        {"estimators": (*MATMULS, "countsketch", "uniform-rows", "rounding:2")},
    ),
    "alpha": Item(
        "α per layer and task",
        "study", "rows.parquet", lambda rows, drawn: paper.probed_figures.alpha(rows),
        FINE, tasks=("stdlib-lm", "digits-mlp", "cifar10/vit"), panels=True,
    ),
}  # fmt: skip
