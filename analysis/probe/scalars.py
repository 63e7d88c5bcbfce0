"""Rows as scalars, for TensorBoard and the like."""

from typing import Any

import pandas as pd


def write_scalars(writer: Any, rows: pd.DataFrame) -> None:
    """``writer.add_scalar(tag, value, step)`` for every row: ratio/<estimator>/<rate>/<layer>; and
    once per layer and step, minibatch_variance/<layer> and grad_sq/<layer>.
    """
    for row in rows.itertuples():
        writer.add_scalar(f"ratio/{row.estimator}/{row.rate:g}/{row.layer}", row.ratio, row.step)
    for row in rows.drop_duplicates(["layer", "step"]).itertuples():
        writer.add_scalar(f"minibatch_variance/{row.layer}", row.minibatch_example, row.step)
        writer.add_scalar(f"grad_sq/{row.layer}", row.grad_sq, row.step)
