"""What several sweeps say beside each other: how far each method ends from exact training."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from sketchvar.analysis.report.contents import Contents, Picture, name_folders
from sketchvar.analysis.report.sweep import HELD, WORDS, load, show_difference
from sketchvar.analysis.report.table import (
    Column,
    Table,
    list_rows,
    show_interval,
    show_number,
    show_text,
    write_whole,
)
from sketchvar.analysis.report.verdict_training import (
    count_words,
    name_run,
    write_fixed,
    write_half,
    write_minus,
)


def read_beside(folders: Sequence[Path]) -> Contents:
    """What several folders of ``train`` say beside each other, in the order given."""
    from sketchvar.analysis.sweep.across_figures import losses_across

    names = name_folders(folders)
    loaded = [load(folder) for folder in folders]
    parts = zip(loaded, names, strict=True)
    table = pd.concat([each.table.assign(of=name) for each, name in parts], ignore_index=True)
    caption = "Final validation loss less that of exact training, of every sweep on one scale"
    return Contents(
        title=" beside ".join(names),
        tables=(tabulate(table),),
        pictures=(Picture("losses_across", caption, partial(losses_across, table)),),
        words={word: said for word, said in WORDS.items() if word != "slowdown"},
        provenance={name: str(folder) for name, folder in zip(names, folders, strict=True)},
        verdict=judge(table),
    )


def tabulate(table: pd.DataFrame) -> Table:
    """A line for each method and sweep, those of a method together."""
    methods = [name_run(line) for line in table.to_dict("records")]
    places = {name: i for i, name in enumerate(dict.fromkeys(methods))}
    order = table.assign(place=[places[name] for name in methods])
    order = order.sort_values("place", kind="stable").drop(columns="place")
    columns = (
        Column("run", name_run, text=True),
        show_text("of", "sweep"),
        show_number("seeds", None, write_whole),
        show_difference("metric_exact", "metric − exact"),
        show_interval("validation", "loss"),
        show_difference("validation_exact", "loss − exact"),
        show_number("ratio"),
        *HELD,
        show_number("seconds", "time"),
        show_number("peak"),
    )
    title = "Final values of every sweep, mean ± 95 %; time and peak over those of exact training"
    return Table("sweeps", title, columns, list_rows(order))


def judge(table: pd.DataFrame) -> tuple[str, ...]:
    """How many estimators are resolved from exact training in each sweep, which method differs most
    between sweeps, and what none of them can say.
    """
    shown = table[(table["estimator"] != "exact") & table["validation_exact"].notna()]
    if shown.empty:
        return ("No sweep has exact training to be compared with.",)
    parts = [
        f"of {len(part)} in {of} {count_words(int((part['validation_exact_holm'] < 0.05).sum()))}"
        for of, part in shown.groupby("of", sort=False)
    ]
    said = ["Of estimators' losses, less that of exact training, resolved: " + ", ".join(parts)]
    named = shown.assign(method=[name_run(line) for line in shown.to_dict("records")])
    wide = named.pivot_table(index="method", columns="of", values="validation_exact", sort=False)
    apart = (wide.max(axis=1) - wide.min(axis=1))[wide.notna().sum(axis=1) > 1]
    if len(apart):
        name = str(apart.idxmax())
        ends = [
            f"{write_minus(line['validation_exact'])} ± {write_half(line, 'validation_exact')} in"
            f" {line['of']}"
            for line in named[named["method"] == name].to_dict("records")
        ]
        said.append(f"Sweeps differ most in {name}: {', '.join(ends)}")
    seen = shown.groupby("of", sort=False)["detectable"].first()
    if seen.notna().any():
        each = ", ".join(f"{write_fixed(value)} in {of}" for of, value in seen.items())
        said.append(f"With power 0.8 the seeds show a difference of {each}")
    return tuple(f"{line}." for line in said)
