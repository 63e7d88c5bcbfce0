"""What noise costs, and where forks ended: tables, figures and a verdict."""

from functools import partial
from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.noise.select import in_order
from sketchvar.analysis.report import cost_frontier
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import (
    NONE,
    Column,
    Row,
    Table,
    list_rows,
    name_method,
    show_error,
    show_number,
    show_text,
    write_horizon,
    write_percent,
    write_short,
    write_whole,
)
from sketchvar.analysis.report.verdict import judge_costs

WORDS = {
    "variance": "E‖Ĝ − G‖² over that of drawing the minibatch, all weights together",
    "metric": "the same with every entry weighted by the optimizer's own step size",
    "cost": (
        "the loss that the noise of the coming steps leaves behind at their end, over that of the"
        " minibatch's noise; ∞: for ever, at this learning rate"
    ),
    "coherence": "1 − the cost where every tensor errs for itself / the cost",
}
FORK_WORDS = {
    "effective": "the fraction of the batch with which exact training ends at the same loss",
    "variance, metric, cost": (
        "1 / (1 + that ratio); the cost over the forks' steps at exact training's learning rate"
    ),
    "both": "noise and progress joined: each at its own best learning rate, from spectra",
}
SAID = {
    "variance": "the variance",
    "metric": "the variance in the optimizer's metric",
    "cost": "the cost over the forks' horizon",
    "both": "noise and progress joined",
}


def read_costs(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``cost``; it shows every rate, whatever ``rate``."""
    from sketchvar.analysis.cost import figures
    from sketchvar.analysis.cost.fork_figures import coherence_of_noise

    rows = records.read_rows(folder / "cost.parquet")
    many = cost_frontier.has_many(rows)
    tables = [cost_frontier.tabulate(rows) if many else tabulate_costs(rows)]
    pictures = (cost_frontier.picture(rows),) if many else list_pictures(rows)
    if (folder / "agreement.parquet").exists():
        tables.append(tabulate_agreement(records.read_rows(folder / "agreement.parquet")))
    if (folder / "coherence.parquet").exists():
        noises = records.read_rows(folder / "coherence.parquet")
        tables.append(tabulate_coherence(noises))
        pictures += (
            Picture(
                "coherence",
                "How much of each noise's cost is there because weights err together",
                partial(coherence_of_noise, noises),
            ),
        )
    if (folder / "cost-layers.parquet").exists():
        layers = records.read_rows(folder / "cost-layers.parquet")
        pictures += (
            Picture(
                "cost_by_layer",
                "One-step cost ratio of every layer by itself; none where X is no larger and kept",
                partial(figures.cost_by_layer, layers),
            ),
        )
    about = records.read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    return Contents(
        title=str(about.get("run", folder.name)),
        tables=tuple(tables),
        pictures=pictures,
        sentences=(say_few(rows),) if int(rows["draws"].max()) < 4 else (),
        details=(tabulate_costs(rows),) if many else (),
        words=WORDS,
        provenance=about,
        verdict=judge_costs(rows),
    )


def list_pictures(rows: pd.DataFrame) -> tuple[Picture, ...]:
    """The figures that ``cost.parquet`` makes."""
    from sketchvar.analysis.cost import figures

    found = [
        Picture(
            "cost",
            "Cost ratio against variance ratio, one point per estimator",
            partial(figures.cost_and_variance, rows),
        ),
        Picture(
            "cost_and_bytes",
            "What bytes buy: variance and one-step cost",
            partial(figures.cost_and_bytes, rows),
        ),
    ]
    if len(set(rows["horizon"])) > 1:
        caption = "Cost ratio by the number of steps that are looked at"
        found.append(Picture("cost_by_horizon", caption, partial(figures.cost_by_horizon, rows)))
    if len(set(rows["step"])) > 1 and 1 in set(rows["horizon"]):
        caption, draw = "One-step cost ratio through training", figures.cost_through_training
        found.append(Picture("cost_through_training", caption, partial(draw, rows)))
    return tuple(found)


def tabulate_costs(rows: pd.DataFrame) -> Table:
    """The three ratios of every estimator at the last measured step, cost over every horizon."""
    rows = rows[rows["step"] == rows["step"].max()]
    horizons = sorted(set(rows["horizon"]))
    keys = ["estimator", "rate", "share"]
    wide = rows[rows["horizon"] == horizons[0]]
    for i, horizon in enumerate(horizons):
        mine = rows[rows["horizon"] == horizon][[*keys, "cost_ratio", "cost_ratio_stderr"]]
        names = {"cost_ratio": f"cost_{i}", "cost_ratio_stderr": f"cost_{i}_stderr"}
        wide = wide.merge(mine.rename(columns=names), on=keys)
    columns = (
        Column("estimator", name_method, text=True),
        show_number("kept_bytes", "bytes kept", write_whole),
        show_number("share", "of X's", write_percent),
        show_error("variance_ratio", "variance"),
        show_error("metric_ratio", "metric"),
        *(
            show_error(f"cost_{i}", "cost, " + write_horizon(horizon))
            for i, horizon in enumerate(horizons)
        ),
    )
    step, task = int(rows["step"].max()), rows["task"].iloc[0] if "task" in rows else "a model"
    odd = rows["unstable"].max()
    caption = f"± one standard error, {int(rows['draws'].max())} draws of each estimator."
    if odd > 0.01:
        caption += (
            f" Up to {write_percent(odd)} of a noise is in directions so steep that steps nearly"
            " diverge."
        )
    title = f"{task} after {step} updates: noise of an estimator over the minibatch's"
    return Table("cost", title, columns, list_rows(wide), caption)


def tabulate_coherence(rows: pd.DataFrame) -> Table:
    """How much of each noise is coherent, at the last measured step."""
    rows = rows[rows["step"] == rows["step"].max()]

    def name(row: Row) -> str:
        label = f"{row['noise']} {row['rate']:g}" if row["rate"] < 1 else str(row["noise"])
        return label + (", one seed for all layers" if row["seeds"] == "one" else "")

    columns = (
        Column("noise", name, text=True),
        show_error("variance_ratio", "variance"),
        show_error("cost_ratio", "cost, 1 step"),
        show_error("coherence", "coherence"),
    )
    title = "How much of the cost is there because tensors of weights err together"
    caption = "Over the minibatch's, the first row on other draws than those that it is over."
    return Table("coherence", title, columns, list_rows(rows), caption)


def tabulate_agreement(rows: pd.DataFrame) -> Table:
    """One-step costs by several curvatures, at the last measured step."""
    rows = rows[rows["step"] == rows["step"].max()]
    columns = (
        Column("noise", lambda row: name_method({**row, "estimator": row["noise"]}), text=True),
        show_text("curvature"),
        show_error("over_first", "its cost / the first's"),
        show_error("cost_ratio", "cost ratio"),
        show_error("first", "by the first"),
    )
    title = "One-step cost by several curvatures, of the same draws"
    caption = "The first column is paired by draw: 1 within two of its errors is agreement."
    return Table("agreement", title, columns, list_rows(rows), caption)


def read_forks(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``forks``."""
    from sketchvar.analysis.cost.effective import judge
    from sketchvar.analysis.cost.fork_figures import effective_batches_and_predictions

    rows = records.read_rows(folder / "effective.parquet")
    about = records.read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    ahead = about.get("study", {}).get("ahead")
    last = rows[rows["step"] == rows["step"].max()]
    told = in_order(last)
    verdict = judge(told)
    parts = (
        records.read_rows(folder / "cost.parquet") if (folder / "cost.parquet").exists() else None
    )
    return Contents(
        title=str(about.get("run", folder.name)),
        tables=(
            tabulate_effective(
                last[last["tuned"].astype(bool)], "at its own best learning rate", ahead
            ),
            tabulate_effective(
                last[~last["tuned"].astype(bool)], "at the common learning rate", ahead
            ),
            tabulate_verdict(verdict),
        ),
        pictures=(
            Picture(
                "effective",
                "The effective batch that forks were read off at, beside predictions",
                partial(effective_batches_and_predictions, rows),
            ),
            *(() if parts is None else list_pictures(parts)),
        ),
        sentences=(say_verdict(verdict) if len(told) else say_disorder(last),),
        words=WORDS | FORK_WORDS,
        provenance=about,
    )


def tabulate_effective(rows: pd.DataFrame, how: str, ahead: int | None) -> Table:
    """Where forks ended, and what was predicted."""

    def name(row: Row) -> str:
        if row["estimator"] == "exact":
            return f"exact, {row['fraction']:g} of the batch"
        return name_method(row)

    def read_off(row: Row) -> str:
        if row["estimator"] == "exact":
            return NONE
        mark = "" if row["inside"] else " (end of the range)"
        return f"{row['effective']:.2f} [{row['low']:.2f}, {row['high']:.2f}]{mark}"

    columns = (
        Column("method", name, text=True),
        show_number("kept_bytes", "bytes kept", write_whole),
        show_number("share", "of X's", write_percent),
        show_number("factor", "rate ×", write_short),
        show_number("loss", None, "{:.4f}".format),
        show_error("behind", "− exact"),
        Column("effective", read_off),
        *(
            show_number(f"by_{p}", p, "{:.2f}".format)
            for p in ("variance", "metric", "cost", "both")
        ),
    )
    steps = f"after {ahead} steps" if ahead else "at their end"
    title = f"Forks {steps}, every method {how}: loss, effective batch and predictions"
    count = int(rows["forks"].max()) if len(rows) else 0
    caption = f"{count} forks of each, paired by their batches; intervals of 95 % by bootstrap."
    return Table("effective", title, columns, list_rows(rows), caption)


def tabulate_verdict(verdict: pd.DataFrame) -> Table:
    """How each prediction did."""
    columns = (
        show_text("prediction"),
        show_number("methods", None, write_short),
        show_number("within", "in the interval", write_short),
        show_number("octaves", "octaves off", "{:+.2f}".format),
        show_number("spread", "root mean square", "{:.2f}".format),
        show_number("rank", "rank correlation", "{:.2f}".format),
        show_number("p", "p", "{:.2g}".format),
    )
    title = "Predictions of the effective batch, over methods at their own best learning rate"
    return Table("judged", title, columns, list_rows(verdict))


def say_verdict(verdict: pd.DataFrame) -> str:
    """Which prediction comes nearest, and whether it holds."""
    known = verdict[verdict["methods"] > 0]
    if known.empty:
        return "No method ended within the range of the exact batches: nothing can be judged."
    best = known.sort_values("spread").iloc[0]
    holds = "which these forks do not contradict" if best["p"] >= 0.05 else "though it is rejected"
    return (
        f"Nearest comes {SAID[best['prediction']]}: {best['within']:.0f} of"
        f" {best['methods']:.0f} in the interval, {2 ** best['spread']:.2f} times off in the root"
        f" mean square, {holds} (p = {best['p']:.2g})."
    )


def say_disorder(rows: pd.DataFrame) -> str:
    """Why nothing is judged, where a smaller batch of exact training ended lower."""
    exact = rows["tuned"].astype(bool) & (rows["estimator"] == "exact")
    whole = rows[exact & (rows["fraction"] == 1)]
    return (
        f"Exact training on the whole batch is itself read off at {whole['effective'].iloc[0]:.2f}"
        " of it, as a smaller batch ended lower: this scale has no order at its upper end, so that"
        " nothing can be judged. More forks, more of them to tune by, more steps or an earlier"
        " state may give it one."
    )


def say_few(rows: pd.DataFrame) -> str:
    """Why there are no error bars."""
    return f"{int(rows['draws'].max())} draws: too few for a standard error; give 4 or more."
