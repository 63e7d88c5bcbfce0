"""D²_SGD, D²_RMM and their ratio through training: as the paper computes them, corrected, and the
bound beside them.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sketchvar.analysis.style import PAGE, UNIT_LINE, plain_ticks, style
from sketchvar.estimators import Gaussian

CURVES = {  # column -> how it is drawn
    "d_sgd": ("D²_SGD, rows as if independent (paper)", "C0", "o", "-"),
    "d_example": ("minibatch variance, by example", "C0", "s", "--"),
    "d_rmm": ("D²_RMM (paper): sampling by norms", "C1", "o", "-"),
    "variance": ("variance of the Gaussian sketch", "C3", "D", "--"),
}
RATIOS = {
    "ratio_paper": ("as the paper computes it", "C1", "o", "-"),
    "ratio_row": ("Gaussian, rows as if independent", "C3", "D", "-"),
    "ratio_example": ("Gaussian, by example", "C3", "s", "--"),
    "bound": ("bound (1 + α) / α", "black", "", "-"),
}


def corrected(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the Gaussian sketch in a study, with the paper's quantities beside the true ones.

    ``d_sgd`` = (nD − C)/(n − 1) and ``d_rmm`` = (Q − C)/k are the paper's. The Gaussian sketch's
    own ``variance`` is (Q + C)/k, greater by (1 + α)/(1 − α). The ratios are × k/(n − 1), as in its
    figure, where 1 is dropping rows:
    ``ratio_paper`` d_rmm / d_sgd, ``ratio_row`` variance / d_sgd, ``ratio_example``
    variance / ``d_example``.

    ``bound`` = (1 + α)/α is the paper's for ``ratio_paper``, which is (Q − C)/(nD − C): it holds if
    and only if nD ≥ 2C/(1 + α), and for ``ratio_row`` = (Q + C)/(nD − C) if and only if nD ≥ 2C;
    the paper states no condition.
    ``holds`` and ``holds_corrected`` say whether each did. The quantities are the paper's, the
    conditions derived here.
    """
    found = rows[rows["estimator"] == "gaussian"]
    n, C = found["rows"], found["grad_sq"]
    Q = C / found["alpha"]
    k = pd.Series(
        [Gaussian(rate).k(int(count)) for rate, count in zip(found["rate"], n, strict=True)],
        found.index,
    )
    found = found.assign(
        k=k, d_sgd=found["minibatch_row"], d_example=found["minibatch_example"], d_rmm=(Q - C) / k
    )
    scale = k / (n - 1)
    found["ratio_paper"] = scale * found["d_rmm"] / found["d_sgd"]
    found["ratio_row"] = scale * found["variance"] / found["d_sgd"]
    found["ratio_example"] = scale * found["variance"] / found["d_example"]
    found["bound"] = (1 + found["alpha"]) / found["alpha"]
    found["holds"] = found["ratio_paper"] <= found["bound"]
    found["holds_corrected"] = found["ratio_row"] <= found["bound"]
    return found


def middle(rows: pd.DataFrame) -> str:
    """The layer that the paper looks at, the intermediate one in the middle of the encoder, or the
    middle layer.
    """
    names = list(dict.fromkeys(rows["layer"]))
    inner = [name for name in names if name.endswith(("intermediate.dense", "up"))]
    return (inner or names)[len(inner or names) // 2]


def draw(rows: pd.DataFrame, layer: str | None, rate: float) -> Figure:
    """The figure of one layer of a study, the middle one unless named. Raises ValueError for a
    layer that was not measured.
    """
    found = corrected(rows)
    shown = layer or middle(found)
    if shown not in set(found["layer"]):
        raise ValueError(
            f"no layer {shown!r} was measured; known are {', '.join(dict.fromkeys(found['layer']))}"
        )
    return figure(found[found["rate"] == rate], shown)


def count_bounds(rows: pd.DataFrame) -> tuple[str, ...]:
    """At how many layers and steps of a study the paper's bound holds, in words."""
    found = corrected(rows)
    return tuple(
        f"(1 + α)/α bounds the ratio at {found[column].sum()} of {len(found)} layers and steps,"
        f" {what}"
        for column, what in (
            ("holds", "as the paper computes the ratio"),
            ("holds_corrected", "for the Gaussian sketch"),
        )
    )


def figure(rows: pd.DataFrame, layer: str) -> Figure:
    """Rows of ``corrected`` at one rate: the quantities on the left, their normalised ratios and
    the bound right.
    """
    style()
    shown = rows[rows["layer"] == layer].sort_values("step")
    steps = range(len(shown))
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 3.6), layout="constrained")
    for axes, curves in zip(panels, (CURVES, RATIOS), strict=True):
        for column, (label, colour, marker, dashes) in curves.items():
            hollow = (
                {"markersize": 7, "markerfacecolor": "none"}
                if column in ("d_rmm", "ratio_paper")
                else {}
            )
            axes.plot(
                steps,
                shown[column],
                dashes,
                marker=marker,
                color=colour,
                label=label,
                linewidth=1,
                **hollow,
            )
        axes.set(yscale="log", xlabel="step (updates, evenly spaced)")
        axes.set_xticks(steps, [f"{step}" for step in shown["step"]])
        axes.legend(fontsize=6, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
        plain_ticks(axes.yaxis)
    panels[0].set_ylabel("E‖Ĝ − G‖², total over entries")
    panels[1].set_ylabel("ratio × k / (n − 1)")
    panels[1].axhline(1, **UNIT_LINE)
    figure.suptitle(f"{layer}, rate {shown['rate'].iloc[0]:g}", fontsize=8)
    return figure
