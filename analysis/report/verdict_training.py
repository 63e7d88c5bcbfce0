"""The verdict of training: what a sweep says of its metric, its loss, the smaller batches, and the
rule of 1 / (1 + ratio). Rows in, words out.
"""

from typing import Any

import pandas as pd

from sketchvar.analysis.report.table import name_method, write_fixed

Line = Any  # a row, as a mapping or a Series


def judge_training(
    rows: pd.DataFrame,
    table: pd.DataFrame,
    predictions: pd.DataFrame | None,
    caution: str,
    metric: str = "",
) -> tuple[str, ...]:
    """What a sweep says of its metric, its loss, and the smaller batches and the rule of
    1 / (1 + ratio); ``caution`` is why a batch is not of the same bytes, ``metric`` what it is.
    """
    whole = table[(table["estimator"] == "exact") & ~table["checkpointing"]]
    if whole.empty:
        return ("No exact training is in this folder: there is nothing to compare with.",)
    exact = whole[whole["batch"] == whole["batch"].max()].iloc[0]
    shown = table[table["estimator"] != "exact"]
    last = "; ".join(filter(None, (judge_partners(shown, caution), judge_rule(predictions))))
    said = (judge_metric(rows, table, exact, metric), judge_loss(shown, exact))
    return (*said, f"{last[0].upper()}{last[1:]}.") if last else said


def judge_metric(rows: pd.DataFrame, table: pd.DataFrame, exact: pd.Series, metric: str) -> str:
    """Which methods end resolved from exact training's metric, and where exact batches end."""
    if not table["metric_exact"].notna().any():
        return f"Exact training ends at a metric of {write_fixed(exact['metric'])}, beside nothing."
    resolved = table[table["metric_exact_holm"] < 0.05]
    count = int(table["metric_exact"].notna().sum())
    ends = [
        f"{write_minus(line['metric_exact'])} ± {write_half(line, 'metric_exact')} for"
        f" {name_run(line)}"
        + f" ({write_fixed(line['metric'])} with {line['seeds']} of {line['seeds']} seeds)"
        * is_constant(rows, line)
        for line in resolved.to_dict("records")
    ]
    smaller = table[(table["estimator"] == "exact") & (table["batch"] < exact["batch"])]
    on = ", ".join(
        f"{write_minus(line['metric'])} on {line['batch']}"
        for line in smaller.sort_values("batch", ascending=False).to_dict("records")
    )
    name = f"metric ({metric})" if metric else "metric"
    said = f"After {rows['step'].max()} updates the {name} of exact training is"
    said += f" {write_fixed(exact['metric'])} on batch {exact['batch']}" + (f", {on}" if on else "")
    if not ends:
        return f"{said}; of {count} differences to it none is resolved."
    return f"{said}; of {count} differences to it {len(ends)} are resolved: {', '.join(ends)}."


def is_constant(rows: pd.DataFrame, line: Line) -> bool:
    """Whether a method ends at the same metric with all of several seeds."""
    same = [rows[name] == line[name] for name in ("estimator", "rate", "batch", "checkpointing")]
    mine = rows[same[0] & same[1] & same[2] & same[3]]
    ends = mine.sort_values("step").groupby("seed")["metric"].last()
    return len(ends) > 1 and len(set(ends)) == 1


def judge_loss(shown: pd.DataFrame, exact: pd.Series) -> str:
    """Between what the losses of estimators lie, and what would have been seen."""
    known = shown[shown["validation_exact"].notna()].sort_values("validation_exact")
    if known.empty:
        return f"The final loss of exact training is {write_fixed(exact['validation'])}."
    low, high = known.iloc[0], known.iloc[-1]
    count, resolved = len(known), int((known["validation_exact_holm"] < 0.05).sum())
    half = known[["validation_exact_high", "validation_exact"]].diff(axis=1).iloc[:, 1].abs().max()
    sure = f", each ± {write_fixed(half)}" if half == half else ""
    seen = exact["detectable"]
    power = f"; with power 0.8 these seeds show {write_fixed(seen)}" if seen == seen else ""
    return (
        f"The final loss is {write_fixed(exact['validation'])}, and the {count} estimators' lie"
        f" between {write_minus(low['validation_exact'])} ({name_run(low)}) and"
        f" {write_minus(high['validation_exact'])} ({name_run(high)}) of it{sure}:"
        f" {count_words(resolved)} resolved{power}."
    )


def judge_partners(shown: pd.DataFrame, caution: str) -> str:
    """How estimators do beside the smaller batches that take as much memory."""
    if caution:
        return caution
    said = []
    for name, words in (
        ("smaller", "as many held bytes"),
        ("examples", "as many held bytes for as many examples"),
        ("peak", "the same peak"),
    ):
        if f"validation_{name}" not in shown:  # of before there was this baseline
            continue
        known = shown[shown[f"validation_{name}"].notna()]
        if len(known):
            better = (known[f"validation_{name}_holm"] < 0.05) & (known[f"validation_{name}"] < 0)
            ends = [
                f" ({name_run(line)} {write_minus(line[f'validation_{name}'])} ±"
                f" {write_half(line, f'validation_{name}')})"
                for line in known[better].to_dict("records")
            ]
            said.append(
                f"of {words} {count_words(len(ends)).split()[0]} of {len(known)} trains better"
                + "".join(ends)
            )
    return "Beside the smaller batch " + ", beside that ".join(said) if said else ""


def judge_rule(predictions: pd.DataFrame | None) -> str:
    """Whether exact training on 1 / (1 + ratio) of the batch ends as predicted."""
    if predictions is None or predictions.empty:
        return ""
    low = predictions.sort_values("error").iloc[0]
    better = int((predictions["error_high"] < 0).sum())
    worse = int((predictions["error_low"] > 0).sum())
    return (
        f"by their own intervals {better} of {len(predictions)} end better than exact training on 1"
        f" / (1 + ratio) of the batch and {worse} worse ({name_run(low)} by"
        f" {write_minus(low['error'])} ± {write_half(low, 'error')})"
    )


def write_minus(value: float) -> str:
    """Three digits, with a minus as it is printed."""
    return write_fixed(value).replace("-", "−")


def write_half(line: Line, field: str) -> str:
    """Half of an interval."""
    return write_fixed(line[f"{field}_high"] - line[field])


def count_words(count: int) -> str:
    """A number of things that are."""
    return "none is" if count == 0 else "one is" if count == 1 else f"{count} are"


def name_run(row: Line) -> str:
    """What a run is called."""
    if row["estimator"] != "exact":
        return name_method(row)
    return f"exact, batch {row['batch']}{', checkpointing' if row['checkpointing'] else ''}"
