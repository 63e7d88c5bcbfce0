"""What several folders say beside each other: runs and files of probes, costs, sweeps,
frontiers.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from sketchvar.analysis.folder import rows_of
from sketchvar.analysis.frontier.best import drop_unusable
from sketchvar.analysis.noise.select import at_rate, choose_rate
from sketchvar.analysis.report import cost_across, forks_across, frontier_across, sweep_across
from sketchvar.analysis.report.contents import Contents, Picture, name_folders
from sketchvar.analysis.report.kinds import find_kind, read_folder
from sketchvar.analysis.report.study import WORDS, add_bytes
from sketchvar.analysis.report.table import (
    Table,
    list_rows,
    show_error,
    show_number,
    show_text,
    write_percent,
    write_whole,
)

RUNS = ("a run", "files of a probe")
ACROSS = {  # a kind of folder: what reads several, and the question
    "costs of noise": (cost_across.read_beside, "What do these costs of noise differ in?"),
    "forks": (
        forks_across.read_beside,
        "As which part of the batch do estimators train, and does one number foretell it?",
    ),
    "training runs": (
        sweep_across.read_beside,
        "Does training lose the same to the noise of estimators in these sweeps?",
    ),
    "a frontier": (
        frontier_across.read_beside,
        "Do these frontiers say the same of what bytes buy?",
    ),
}
SAME = 1.02  # a factor that nobody sees


def read_all(folders: Sequence[Path], rate: float | None = None) -> Contents:
    """Read a folder of any kind, or several of one kind. Raises ValueError for kinds that cannot
    stand beside each other.
    """
    if len(folders) == 1:
        return read_folder(folders[0], rate)
    kinds = {find_kind(folder).name: folder for folder in folders}
    for kind, (read, question) in ACROSS.items():
        if set(kinds) == {kind}:
            return replace(read(folders), question=question)
    odd = next((kind for kind in kinds if kind not in (*RUNS, *ACROSS)), list(kinds)[-1])
    if not set(kinds) <= set(RUNS):
        raise ValueError(
            f"{kinds[odd]} holds {odd}: runs, costs of noise, forks, training runs or"
            " frontiers can be shown beside each other; give one folder, or several of one of those"
        )
    return read_runs(folders, rate)


def read_runs(folders: Sequence[Path], rate: float | None = None) -> Contents:
    """Runs beside each other, each at its last measured step, at one rate of all."""
    from sketchvar.analysis.noise import figures

    names = name_folders(folders)
    parts = [
        add_bytes(rows_of(folder), folder).assign(run=name)
        for folder, name in zip(folders, names, strict=True)
    ]
    rate = choose_rate(pd.concat(parts), rate)
    each = [summarise(at_rate(part, choose_rate(part, rate))) for part in parts]
    lines = pd.concat(each, ignore_index=True)
    rows = pd.concat(parts, ignore_index=True)
    return Contents(
        title=" beside ".join(names),
        tables=(tabulate(lines, rate),),
        pictures=(
            Picture(
                "ratio_through_training",
                f"Median ratio over layers, rate {rate:g}, a panel for each run",
                partial(figures.ratio_through_training, rows, rate),
                wide=True,
            ),
            Picture(
                "ratio_by_layer",
                f"Ratio of every layer at the last step of each run, rate {rate:g}",
                partial(draw_last, rows, rate),
                wide=True,
            ),
        ),
        words=WORDS,
        provenance={name: str(folder) for name, folder in zip(names, folders, strict=True)},
        question="Do these runs say the same of how large the noise of estimators is?",
        verdict=judge(lines),
    )


def draw_last(rows: pd.DataFrame, rate: float) -> Any:
    """Every run at its own last step."""
    from sketchvar.analysis.noise.figures import ratio_by_layer

    last = rows[rows["step"] == rows.groupby("run")["step"].transform("max")]
    return ratio_by_layer(last, rate)


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Of one run at its last step, a line for each estimator: the median ratio over layers with the
    median of their errors, and the share of bytes.
    """
    last = rows[rows["step"] == rows["step"].max()]
    found = last.groupby(["run", "step", "estimator"], sort=False).agg(
        ratio=("ratio", "median"),
        ratio_stderr=("ratio_stderr", "median"),
        kept_bytes=("kept_bytes", "sum"),
        x_bytes=("x_bytes", "sum"),
        layers=("layer", "nunique"),
        oracle=("oracle", "first"),
        biased=("biased", "first"),
    )
    return found.assign(share=found["kept_bytes"] / found["x_bytes"]).reset_index()


def tabulate(lines: pd.DataFrame, rate: float) -> Table:
    """A line for each estimator and run."""
    order = lines.sort_values("estimator", kind="stable")
    columns = (
        show_text("estimator"),
        show_text("run"),
        show_number("step", None, "{:.0f}".format),
        show_number("layers", None, "{:.0f}".format),
        show_number("kept_bytes", "bytes kept", write_whole),
        show_number("share", "of X's", write_percent),
        show_error("ratio", "ratio"),
    )
    title = f"Median ratio over the layers at the last step, rate {rate:g}"
    return Table("runs", title, columns, list_rows(order))


def judge(lines: pd.DataFrame) -> tuple[str, ...]:
    """Which estimator is least in each run, and where runs differ most."""
    usable = drop_unusable(lines[lines["ratio"].notna()])
    least = usable.loc[usable.groupby("run", sort=False)["ratio"].idxmin()]
    first = ", ".join(
        f"{line['estimator']} in {line['run']} ({line['ratio']:.3g})"
        for line in least.to_dict("records")
    )
    wide = lines.pivot_table(index="estimator", columns="run", values="ratio", sort=False)
    apart = (wide.max(axis=1) / wide.min(axis=1)).dropna()
    said = [f"Least in the median layer is {first}, of what a layer can use."]
    if len(apart) and apart.max() < SAME:
        said.append("Where several have an estimator they agree within 2 %.")
    elif len(apart):
        name = str(apart.idxmax())
        values = ", ".join(f"{value:.3g} in {run}" for run, value in wide.loc[name].items())
        said.append(f"The runs differ most in {name}: {values}.")
    unknown = lines["ratio_stderr"].isna().all()
    said.append(
        "These rows know no errors of ratios, so that chance may be all of it."
        if unknown
        else "Errors (± in the table) are of one batch each: chance is what they allow at most."
    )
    return tuple(said)
