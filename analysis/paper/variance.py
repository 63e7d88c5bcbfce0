"""D²_SGD, D²_RMM and their ratio through training: as the paper computes them, corrected, and the
bound beside them.
"""

import pandas as pd

from sketchvar.estimators import Gaussian


def correct(rows: pd.DataFrame) -> pd.DataFrame:
    """Set the paper's quantities beside the true ones, in a study's rows of the Gaussian sketch.

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


def choose_layer(rows: pd.DataFrame, layer: str | None) -> tuple[pd.DataFrame, str]:
    """Correct a study's rows, and choose the layer to draw: the middle one unless named. Raises
    ValueError for a layer that was not measured.
    """
    found = correct(rows)
    chosen = layer or find_middle(found)
    if chosen not in set(found["layer"]):
        known = ", ".join(dict.fromkeys(found["layer"]))
        raise ValueError(f"no layer {chosen!r} was measured; known are {known}")
    return found, chosen


def count_bounds(rows: pd.DataFrame) -> tuple[str, ...]:
    """Say at how many layers and steps of a study the paper's bound holds."""
    found = correct(rows)
    return tuple(
        f"(1 + α)/α bounds the ratio at {found[column].sum()} of {len(found)} layers and steps,"
        f" {what}"
        for column, what in (
            ("holds", "as the paper computes the ratio"),
            ("holds_corrected", "for the Gaussian sketch"),
        )
    )


def find_middle(rows: pd.DataFrame) -> str:
    """Find the layer that the paper looks at, the intermediate one in the middle of the encoder, or
    the middle layer.
    """
    names = list(dict.fromkeys(rows["layer"]))
    inner = [name for name in names if name.endswith(("intermediate.dense", "up"))]
    return (inner or names)[len(inner or names) // 2]
