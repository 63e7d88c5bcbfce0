"""What was measured of every layer that can be planned: a row per step, layer and choice."""

from collections.abc import Collection

import numpy as np
import pandas as pd
import torch

from sketchvar.analysis.plan.objective import SUM, Objective
from sketchvar.estimators import Exact
from sketchvar.estimators.layers.convert import select

COLUMNS = ["step", "layer", "input_of", "rows", "p", "estimator", "rate", "kept_bytes", "x_bytes"]
COLUMNS += ["each", "each_stderr"]


def measure_layers(
    rows: pd.DataFrame,
    dtype: torch.dtype,
    exact: Collection[str] = (),
    objective: Objective = SUM,
    layers: str | None = None,
) -> pd.DataFrame:
    """Take what a plan needs from the rows of one run (``noise.COLUMNS``), X kept in ``dtype``:
    ``each``, a layer's number of the objective at a step, with its standard error (NaN where it is
    unknown), and the bytes that the choice keeps of X.

    Beside ``exact``, which keeps all of X, a layer has what is unbiased and no oracle; those named
    by the patterns of ``exact`` have nothing else. ``layers`` is a pattern of those that are
    planned: all but those of ``list_single_rows`` unless given. No part of a plan are layers that
    no converted one can replace (``sketchable``), nor a layer's steps without a minibatch variance
    (an idle expert, a batch of one). Rows without ``input_of`` share nothing. In a convolution X is
    the matrix of patches, which is larger than the image that exact training keeps.

    Raises ValueError for a variance that is not finite, a pattern that names no layer, and where no
    candidate is left.
    """
    names = list(dict.fromkeys(rows["layer"]))
    for pattern in (*exact, *([] if layers is None else [layers])):
        if not select(pattern, names):
            raise ValueError(
                f"{pattern!r} matches no layer; the measured ones are {', '.join(names)}"
            )
    if not {"oracle", "biased"} <= set(rows):
        raise ValueError(
            "these rows have no columns oracle and biased, as those of older files; read the file"
            " by sketchvar.analysis.records.read_rows, which adds them"
        )
    single = list_single_rows(rows)
    planned = [n for n in names if n not in single] if layers is None else select(layers, names)
    rows = drop_unplanned(rows[rows["layer"].isin(planned)])
    # a layer trains with what needs X only, and whose error averages out over steps
    rows = rows[~rows["oracle"] & ~rows["biased"] & (rows["estimator"] != "exact")]
    if rows.empty:
        raise ValueError(
            "no row is of an unbiased estimator that a layer can use; measure some, as in run"
            " --estimators countsketch"
        )
    rows = rate_layers(rows, objective)
    sizes = zip(rows["rows"], rows["p"], strict=True)
    rows = rows.assign(
        input_of=rows["input_of"].fillna(rows["layer"]) if "input_of" in rows else rows["layer"],
        x_bytes=[Exact().kept_bytes(int(n), int(p), dtype) for n, p in sizes],
    )[COLUMNS]
    plain = rows.drop_duplicates(["step", "layer"])
    plain = plain.assign(
        estimator="exact", rate=1.0, kept_bytes=plain["x_bytes"], each=0.0, each_stderr=0.0
    )
    stays = {name for pattern in exact for name in select(pattern, names)}
    table = pd.concat([plain, rows[~rows["layer"].isin(stays)]], ignore_index=True)
    order = table["step"], table["layer"].map(names.index)
    return table.iloc[np.lexsort(order[::-1])].reset_index(drop=True)


def list_single_rows(rows: pd.DataFrame) -> list[str]:
    """List the layers that see one row of each example where others see several, as a classifier or
    a pooler does: they keep next to nothing, and their noise is that of a few rows.
    """
    each = (rows["rows"] / rows["examples"]).groupby(rows["layer"], sort=False).max()
    return list(each.index[each <= 1]) if (each > 1).any() else []


def rate_layers(rows: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """Add ``each`` and ``each_stderr``. Raises ValueError where they are not known."""
    column = objective.column
    if column == "ratio":
        check_finite(rows)
        value = rows["variance"] / rows["minibatch_example"]
    elif column not in rows or not np.isfinite(rows[column]).any():
        raise ValueError(
            f"these rows have no {column}; measure it: run --metric progress for --objective"
            " metric, cost --by-layer for --objective cost"
        )
    else:
        rows = rows[np.isfinite(rows[column])]
        value = rows[column]
    error = rows.get(f"{column}_stderr", pd.Series(np.nan, rows.index))
    if "metric" in column:  # in one metric layers add up: each is a part of the whole model's
        once = rows.drop_duplicates(["step", "layer"])
        whole = rows["step"].map(once.groupby("step")["metric_minibatch"].sum())
        part = rows["metric_minibatch"] / whole
        value, error = part * value, part * error
    return rows.assign(each=value, each_stderr=error)


def drop_unplanned(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop the layers that no converted one can replace (``sketchable``, where rows say it), and
    each layer's steps whose minibatch variance is undefined or 0, unless that is all of them.

    Raises ValueError where no layer can be converted.
    """
    if "sketchable" in rows:
        rows = rows[rows["sketchable"].astype(bool)]
        if rows.empty:
            raise ValueError(
                "none of the measured layers can be converted: sketch_linears(model, ...) says why"
            )
    if "minibatch_example" not in rows:
        return rows
    defined = np.isfinite(rows["minibatch_example"]) & (rows["minibatch_example"] > 0)
    return rows[defined] if defined.any() else rows


def check_finite(rows: pd.DataFrame) -> None:
    """Raise ValueError, naming the first, for a variance or minibatch variance that is not
    finite.
    """
    for column, what in (
        ("minibatch_example", "no minibatch variance by example"),
        ("variance", "no finite variance"),
    ):
        wrong = rows[~np.isfinite(rows[column])]
        if len(wrong):
            row = wrong.iloc[0]
            of = "" if column == "minibatch_example" else f" of {row['estimator']}"
            remedy = (
                "measure by example, 2 or more"
                if column == "minibatch_example"
                else "measure without it"
            )
            raise ValueError(f"{row['layer']} has {what}{of} at step {row['step']}; {remedy}")
    if not rows["minibatch_example"].sum() > 0:
        raise ValueError(
            "the minibatch variance is 0 in all layers; measure a step whose gradient is not 0"
        )
