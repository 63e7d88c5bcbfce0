"""Candidates of a plan: what each layer can take, from the rows of a run."""

from collections.abc import Collection

import numpy as np
import pandas as pd
import torch

from sketchvar.analysis.plan.totals import CHOICE
from sketchvar.estimators import Exact
from sketchvar.estimators.layers.convert import select


def list_candidates(
    rows: pd.DataFrame, dtype: torch.dtype, exact: Collection[str] = ()
) -> pd.DataFrame:
    """List what each layer can take, a row each: layer, input_of, estimator, rate, kept_bytes,
    x_bytes, variance, minibatch.

    ``rows`` are those of one run (``noise.COLUMNS``), X kept in ``dtype``. All numbers are means
    over their steps, so that a ratio is one of averages. Beside ``exact``, which keeps all of X, it
    has what is unbiased, no oracle, and smaller than X. ``exact``: patterns of layers that stay
    exact. No part of a plan are layers that no converted one can replace (``sketchable``), nor a
    layer's steps without a minibatch variance (an idle expert, a batch of one). Rows without
    ``input_of`` share nothing. In a convolution X is the matrix of patches, which is larger than
    the image that exact training keeps.

    Raises ValueError for a variance that is not finite, a pattern that names no layer, and where no
    candidate is left.
    """
    layers = list(dict.fromkeys(rows["layer"]))
    for pattern in exact:
        if not select(pattern, layers):
            raise ValueError(
                f"{pattern!r} matches no layer; the measured ones are {', '.join(layers)}"
            )
    if not {"oracle", "biased"} <= set(rows):
        raise ValueError(
            "these rows have no columns oracle and biased, as those of older files; read the file"
            " by sketchvar.analysis.records.read_rows, which adds them"
        )
    rows = drop_unplanned(rows)
    # a layer trains with what needs X only, and whose error averages out over steps
    rows = rows[~rows["oracle"] & ~rows["biased"] & (rows["estimator"] != "exact")]
    if rows.empty:
        raise ValueError(
            "no row is of an unbiased estimator that a layer can use; measure some, as in run"
            " --estimators countsketch"
        )
    check_finite(rows)
    sizes = zip(rows["rows"], rows["p"], strict=True)
    first = rows["input_of"].fillna(rows["layer"]) if "input_of" in rows else rows["layer"]
    whole = [Exact().kept_bytes(int(n), int(p), dtype) for n, p in sizes]
    choices = rows.assign(input_of=first, x_bytes=whole).groupby(["layer", *CHOICE], sort=False)
    table = choices.agg(
        input_of=("input_of", "first"),
        kept_bytes=("kept_bytes", "mean"),
        x_bytes=("x_bytes", "mean"),
        variance=("variance", "mean"),
        minibatch=("minibatch_example", "mean"),
    ).reset_index()
    plain = table.drop_duplicates("layer").assign(estimator="exact", rate=1.0, variance=0.0)
    stays = table["layer"].isin([layer for pattern in exact for layer in select(pattern, layers)])
    smaller = table[
        (table["kept_bytes"] < table["x_bytes"]) & ~stays
    ]  # a layer that would keep as much runs exactly
    table = pd.concat([plain.assign(kept_bytes=plain["x_bytes"]), smaller], ignore_index=True)
    return table.sort_values(
        "layer", key=lambda names: names.map(layers.index), kind="stable", ignore_index=True
    )


def drop_unplanned(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop the layers that no converted one can replace (``sketchable``, where rows say it), and
    each layer's steps without a minibatch variance, unless that is all of them.

    Raises ValueError where no layer can be converted.
    """
    if "sketchable" in rows:
        rows = rows[rows["sketchable"].astype(bool)]
        if rows.empty:
            raise ValueError(
                "none of the measured layers can be converted: sketch_linears(model, ...) says why"
            )
    defined = np.isfinite(rows["minibatch_example"])
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
