"""Several folders of costs beside each other: what differs between them, coherence and costs."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.noise.draw import LINEAR, MINIBATCH
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.cost import WORDS
from sketchvar.analysis.report.table import (
    Column,
    Row,
    Table,
    list_rows,
    name_method,
    show_error,
    show_number,
    show_text,
    write_percent,
    write_whole,
)

CLEAR = 2.0  # standard errors between two runs that are taken for different


def read_beside(folders: Sequence[Path]) -> Contents:
    """What several folders of ``cost`` say beside each other, each at its last measured step, in
    the order given.
    """
    from sketchvar.analysis.cost import across_figures as figures

    names = list(name_runs(folders))
    costs, noises, ways = (
        gather(folders, names, f"{what}.parquet") for what in ("cost", "coherence", "agreement")
    )
    tables = [tabulate_costs(costs)]
    pictures, sentences = [], []
    if len(noises):
        tables.append(tabulate_coherence(noises))
        sentences += list(say_change(noises, names))
        pictures.append(
            Picture(
                "coherence_across",
                "Coherence of noise, by run",
                partial(figures.coherence_across, noises),
            )
        )
    if len(ways):
        tables.append(tabulate_agreement(ways))
    pictures.append(
        Picture("cost_across", "One-step cost ratio, by run", partial(figures.cost_across, costs))
    )
    return Contents(
        title="costs of " + ", ".join(names),
        tables=tuple(tables),
        pictures=tuple(pictures),
        sentences=tuple(sentences),
        words=WORDS,
    )


def gather(folders: Sequence[Path], names: Sequence[str], file: str) -> pd.DataFrame:
    """The rows of a file of all folders that have it, of their last steps, with ``of``, the run."""
    parts = []
    for folder, name in zip(folders, names, strict=True):
        if (folder / file).exists():
            rows = records.read_rows(folder / file)
            parts.append(rows[rows["step"] == rows["step"].max()].assign(of=name))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def name_runs(folders: Sequence[Path], but: Collection[str] = ()) -> list[str]:
    """What tells each run from the others: task, options, seed and step where they differ, ``but``
    those; else its folder.
    """
    facts = [describe(folder) for folder in folders]
    keys = [key for key in dict.fromkeys(key for each in facts for key in each) if key not in but]
    differ = [key for key in keys if len({each.get(key) for each in facts}) > 1]
    names = [", ".join(say(key, each[key]) for key in differ if key in each) for each in facts]
    if len(set(names)) < len(folders) or "" in names:
        return [folder.name or str(folder) for folder in folders]
    return names


def describe(folder: Path) -> dict[str, str]:
    """The facts of a run by which it can be told from others."""
    path = folder / "run.json"
    study: Mapping[str, Any] = records.read_json(path).get("study", {}) if path.exists() else {}
    facts = {key: str(study[key]) for key in ("task", "seed") if key in study}
    if study.get("measure_at"):
        facts["step"] = str(study["measure_at"][-1])
    return facts | {str(key): str(value) for key, value in study.get("options", [])}


def say(key: str, value: str) -> str:
    """A fact in short."""
    return value if key == "task" else f"{key.replace('_', ' ')} {value}"


def tabulate_costs(rows: pd.DataFrame) -> Table:
    """The one-step cost of every estimator in every run."""
    columns = (
        show_text("of", "run"),
        Column("estimator", name_method, text=True),
        show_number("kept_bytes", "bytes kept", write_whole),
        show_number("share", "of X's", write_percent),
        show_error("variance_ratio", "variance"),
        show_error("cost_ratio", "cost, 1 step"),
    )
    title = "Noise of an estimator over the minibatch's, run by run"
    return Table("costs", title, columns, list_rows(rows[rows["horizon"] == 1]))


def tabulate_coherence(rows: pd.DataFrame) -> Table:
    """The coherence of every noise in every run."""

    def name(row: Row) -> str:
        label = name_method({**row, "estimator": row["noise"]})
        return label + (", one seed for all layers" if row["seeds"] == "one" else "")

    columns = (
        Column("noise", name, text=True),
        show_text("of", "run"),
        show_error("coherence", "coherence"),
        show_error("cost_ratio", "cost, 1 step"),
    )
    order = {noise: i for i, noise in enumerate((MINIBATCH, LINEAR))}
    places = rows["noise"].map(order).fillna(len(order))
    rows = rows.assign(place=places).sort_values(["place", "noise", "rate", "seeds"], kind="stable")
    title = "How much of the cost is there because tensors of weights err together, run by run"
    return Table("coherence", title, columns, list_rows(rows.drop(columns="place")))


def tabulate_agreement(rows: pd.DataFrame) -> Table:
    """One-step costs by several curvatures, in every run."""
    columns = (
        show_text("of", "run"),
        Column("noise", lambda row: name_method({**row, "estimator": row["noise"]}), text=True),
        show_text("curvature"),
        show_error("over_first", "its cost / the first's"),
        show_error("cost_ratio", "cost ratio"),
        show_error("first", "by the first"),
    )
    title = "One-step cost by several curvatures, of the same draws, run by run"
    caption = "Its cost / the first's is paired by draw: 1 within two of its errors is agreement."
    return Table("agreement", title, columns, list_rows(rows), caption)


def say_change(rows: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """How the minibatch's coherence changes from the first run to the last, and how sure that is;
    nothing where errors are not known.
    """
    mine = rows[(rows["noise"] == MINIBATCH) & (rows["seeds"] == "own")].set_index("of")
    ends = [mine.loc[name] for name in (names[0], names[-1]) if name in mine.index]
    if len(ends) < 2 or ends[0]["coherence_stderr"] != ends[0]["coherence_stderr"]:
        return []
    (a, da), (b, db) = ((end["coherence"], end["coherence_stderr"]) for end in ends)
    apart = (b - a) / max((da**2 + db**2) ** 0.5, 1e-300)
    what = "grows" if apart > CLEAR else "falls" if apart < -CLEAR else "is not seen to change"
    return [
        f"From {names[0]} to {names[-1]} the minibatch's coherence {what}: {a:.2f} ± {da:.2f} and"
        f" {b:.2f} ± {db:.2f}, {apart:+.1f} standard errors apart."
    ]
