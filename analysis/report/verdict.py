"""The verdict of a folder: three sentences made of its numbers, with their intervals. Rows in,
words out.
"""

import math
from typing import Any

import pandas as pd

from sketchvar.analysis.frontier.best import BASELINE, drop_unusable, find_best
from sketchvar.analysis.noise.scale import TOTAL, batch_fraction, noise_scale
from sketchvar.analysis.noise.select import at_rate
from sketchvar.analysis.report.table import (
    name_method,
    write_digits,
    write_horizon,
    write_percent,
)

BUDGETS = (0.25, 0.125, 0.03)
Sentences = tuple[str, ...]


def judge_ratios(rows: pd.DataFrame, rate: float) -> Sentences:
    """What the rows of a run say at one rate: the least noise of those that a layer can use, what
    it leaves of a batch, and how that went through training.
    """
    last = at_rate(rows[rows["step"] == rows["step"].max()], rate)
    usable = drop_unusable(last[last["ratio"].notna()])
    if usable.empty:
        return (f"No ratio is known at step {last['step'].iloc[0]}: all are NaN or of oracles.",)
    order = usable.groupby("estimator", sort=False)["ratio"].median().sort_values()
    best, worst = str(order.index[0]), str(order.index[-1])
    mine = usable[usable["estimator"] == best]
    said = (
        f"After {last['step'].iloc[0]} updates {best} adds the least noise of what a layer can use"
        f"{at(last, best)}: {write_spread(mine)} times the minibatch's in the median layer"
        f"{write_kept(mine)}"
    )
    if worst != best:
        other = usable[usable["estimator"] == worst]
        said += f"; {worst} adds the most, {write_spread(other)}{write_kept(other)}"
    top = mine.sort_values("ratio").iloc[-1]
    total = batch_fraction(mine)
    whole = total[total["layer"] == TOTAL].iloc[0]
    first = mine["minibatch_example"] / mine["minibatch_example"].sum()
    head = mine["layer"].iloc[int(first.fillna(0.0).to_numpy().argmax())]
    return (
        said + ".",
        f"With {best} in all layers a step is as noisy as an exact one on"
        f" {write_percent(whole['fraction'])} of its batch (a sum of variances, in which {head}"
        f" weighs {write_percent(first.max())}); the noisiest layer by itself is {top['layer']}, at"
        f" {write_error(top['ratio'], top.get('ratio_stderr'))}.",
        describe_training(at_rate(rows, rate), best),
    )


def at(rows: pd.DataFrame, name: str) -> str:
    """At which rate, where there is one."""
    line = rows[rows["estimator"] == name].iloc[0]
    return f" at rate {line['rate']:g}" if line["takes_rate"] else ""


def write_spread(rows: pd.DataFrame) -> str:
    """A median over layers with their quartiles, and the median of their errors."""
    low, middle, high = (write_digits(float(rows["ratio"].quantile(q))) for q in (0.25, 0.5, 0.75))
    error = rows["ratio_stderr"].median() if "ratio_stderr" in rows else math.nan
    known = f", ± {error:.1g} each" if error == error else ""
    return f"{middle} [{low}, {high}{known}]"


def write_kept(rows: pd.DataFrame) -> str:
    """For which share of the bytes of X, where rows know it."""
    if "x_bytes" not in rows or not rows["x_bytes"].notna().all():
        return ""
    return f" for {write_percent(rows['kept_bytes'].sum() / rows['x_bytes'].sum())} of X's bytes"


def describe_training(rows: pd.DataFrame, name: str) -> str:
    """How an estimator's ratio went through training, and how large the noise scale is."""
    middle = rows[rows["estimator"] == name].groupby("step")["ratio"].median()
    batch = int(rows["examples"].max())
    scale = noise_scale(rows, decay=0)
    line = scale[scale["layer"] == TOTAL].sort_values("step").iloc[-1]
    if line["noise_scale_least"] == line["noise_scale_least"]:
        size = f"is above {write_digits(line['noise_scale_least'])} examples, as noise hides it"
    elif line["noise_scale"] == line["noise_scale"]:
        size = f"is {write_error(line['noise_scale'], line['noise_scale_stderr'])} examples"
    else:
        size = "is not known, as noise hides the gradient"
    went = "One step was measured"
    if len(middle) > 1:
        ends = [write_digits(value) for value in (middle.iloc[0], middle.iloc[-1])]
        span = f"from {ends[0]} (step {middle.index[0]}) to {ends[1]} (step {middle.index[-1]})"
        went = f"Through training its median went {span}"
    return f"{went}; the noise scale of all layers {size}, and the batch has {batch}."


def judge_frontier(table: pd.DataFrame) -> Sentences:
    """The least ratio for three budgets, beside uniform rows."""
    said = []
    for budget in BUDGETS:
        found = find_best(table, budget, 1)
        base = find_best(table[table["estimator"] == BASELINE], budget, 1)
        if len(found):
            line = found.iloc[0]
            other = len(base) > 0 and line["estimator"] != BASELINE
            beside = f", {BASELINE} {write_between(base.iloc[0])}" if other else ""
            said.append(
                f"For {100 * budget:g} % of X's bytes {line['estimator']} has the least ratio,"
                f" {write_between(line)}{beside}."
            )
    return tuple(said)


def write_between(line: pd.Series) -> str:
    """A median with its quartiles over layers and steps."""
    low, high = write_digits(line["low"]), write_digits(line["high"])
    return f"{write_digits(line['ratio'])} [{low}, {high}]"


def judge_costs(rows: pd.DataFrame) -> Sentences:
    """Whether noise costs what its variance says, which costs least, and over longer horizons."""
    rows = rows[rows["step"] == rows["step"].max()]
    rows = rows[~rows.get("oracle", pd.Series(False, rows.index)).astype(bool)]
    horizons = sorted(h for h in set(rows["horizon"]) if math.isfinite(h)) or [math.inf]
    one = rows[rows["horizon"] == horizons[0]].sort_values("cost_ratio")
    least, most = one.iloc[0], one.iloc[-1]
    below = int((one["cost_ratio"] < one["variance_ratio"]).sum())
    said = [
        f"After {rows['step'].iloc[0]} updates, over {write_horizon(horizons[0])}, noise costs less"
        f" than its variance says for {below} of {len(one)} estimators: {write_cost(most)}.",
        f"Least costs {write_cost(least)}, for {write_percent(least['share'])} of X's bytes.",
    ]
    if len(horizons) > 1:
        far = rows[rows["horizon"] == horizons[-1]].sort_values("cost_ratio")
        said.append(
            f"Over {write_horizon(horizons[-1])} the least is {write_cost(far.iloc[0])}, the most"
            f" {write_cost(far.iloc[-1])}."
        )
    return tuple(said)


def write_cost(line: Any) -> str:
    """What an estimator's noise costs, beside its variance."""
    cost = write_error(line["cost_ratio"], line["cost_ratio_stderr"])
    variance = write_error(line["variance_ratio"], line["variance_ratio_stderr"])
    return f"{name_method(line)}, {cost} times the minibatch's, at {variance} times its variance"


def write_error(value: float, error: float | None) -> str:
    """A number with its standard error, where that is known."""
    known = error is not None and error == error
    return f"{write_digits(value)} ± {error:.1g}" if known else write_digits(value)
