"""What of a table of rows is shown: rows in, rows out."""

import pandas as pd


def at_rate(rows: pd.DataFrame, rate: float) -> pd.DataFrame:
    """Select the rows at one rate, with those of estimators that take none."""
    return rows[(rows["rate"] == rate) | ~takes_rate(rows)]


def list_rates(rows: pd.DataFrame) -> list[float]:
    """List the rates of estimators that take one, rising."""
    return sorted(set(rows.loc[takes_rate(rows), "rate"]))


def choose_rate(rows: pd.DataFrame, rate: float | None = None) -> float:
    """Choose the rate of a picture at one rate: 0.1, or the smallest, unless given. Raises
    ValueError if it was not measured.
    """
    rates = list_rates(rows) or [1.0]
    rate = (0.1 if 0.1 in rates else rates[0]) if rate is None else rate
    if rate not in rates:
        raise ValueError(
            f"no rows at rate {rate:g}; measured were {', '.join(f'{r:g}' for r in rates)}"
        )
    return rate


def choose_step(rows: pd.DataFrame, step: int | None = None) -> pd.DataFrame:
    """Select the rows of a step, of the last unless given; all, where rows say none. Raises
    ValueError for one that was not measured.
    """
    if "step" not in rows:
        return rows
    steps = sorted(set(rows["step"]))
    if not steps:
        raise ValueError("there are no rows; the run stopped before its first measured step")
    if step is not None and step not in steps:
        there = ", ".join(str(one) for one in steps[:20]) + (" …" if len(steps) > 20 else "")
        raise ValueError(f"step {step} was not measured; measured were {there}")
    return rows[rows["step"] == (steps[-1] if step is None else step)]


def by_unit(rows: pd.DataFrame) -> pd.DataFrame:
    """Repeat the rows with ``ratio`` against the minibatch variance of each ``unit``: example, then
    row, of which ``ratio_stderr`` is not known.
    """
    example = rows.assign(unit="example", ratio=rows["variance"] / rows["minibatch_example"])
    row = rows.assign(unit="row", ratio=rows["variance"] / rows["minibatch_row"])
    if "ratio_stderr" in rows:
        row["ratio_stderr"] = float("nan")
    return pd.concat([example, row], ignore_index=True)


def takes_rate(rows: pd.DataFrame) -> pd.Series:
    """Whether the estimator of each row takes a rate. Raises ValueError for rows that do not say
    it.
    """
    if "takes_rate" not in rows:
        raise ValueError(
            "these rows have no column takes_rate, as those of older files; read the file by"
            " sketchvar.analysis.records.read_rows, which adds it"
        )
    return rows["takes_rate"].astype(bool)


def in_order(effective: pd.DataFrame) -> pd.DataFrame:
    """Rows of effective batches without the states (``step``, of a ``run`` or ``of``) whose scale
    has no order: those in which exact training on the whole batch, at its own best learning rate,
    is read off at less than all of it, as a smaller batch ended lower.
    """
    keys = [key for key in ("of", "run", "step") if key in effective]
    exact = effective["tuned"].astype(bool) & (effective["estimator"] == "exact")
    whole = exact & (effective["fraction"] == 1)
    states = pd.MultiIndex.from_frame(effective[keys])
    return effective[~states.isin(states[whole & (effective["effective"] < 1 - 1e-9)])]
