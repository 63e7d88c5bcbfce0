"""What forks of several trainings say beside each other: does one prediction hold in all?"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.cost.effective import judge
from sketchvar.analysis.noise.select import in_order
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.cost import (
    FORK_WORDS,
    WORDS,
    say_disorder,
    say_verdict,
    tabulate_verdict,
)
from sketchvar.analysis.report.cost_across import name_runs
from sketchvar.analysis.report.table import Table, list_rows, show_number, show_text


def read_beside(folders: Sequence[Path]) -> Contents:
    """What several folders of ``forks`` say beside each other, every step of each, in the order
    given.
    """
    from sketchvar.analysis.cost.across_figures import effective_batches_across

    names = name_runs(folders, but=["step"])  # all steps of each are shown
    parts = [
        records.read_rows(folder / "effective.parquet").assign(of=name)
        for folder, name in zip(folders, names, strict=True)
    ]
    rows = pd.concat(parts, ignore_index=True)
    told = in_order(rows)
    verdict = judge(told)
    return Contents(
        title="forks of " + ", ".join(names),
        tables=(tabulate_runs(parts), tabulate_verdict(verdict)),
        pictures=(
            Picture(
                "effective_across",
                "The effective batch that forks were read off at, over predictions of it",
                partial(effective_batches_across, told),
                wide=True,
            ),
        )
        if len(told)
        else (),
        sentences=(say_verdict(verdict) if len(told) else say_disorder(rows),),
        words=WORDS | FORK_WORDS,
        provenance={name: str(folder) for name, folder in zip(names, folders, strict=True)},
    )


def tabulate_runs(parts: Sequence[pd.DataFrame]) -> Table:
    """How far each prediction is off in the root mean square, step by step of every run."""
    lines = []
    for rows in parts:
        for step, part in rows.groupby("step"):
            found = judge(in_order(part)).set_index("prediction")
            times = (2 ** found["spread"]).to_dict()
            lines.append(
                {"of": rows["of"].iloc[0], "step": step, "methods": found["methods"].max(), **times}
            )
    names = ("variance", "metric", "cost", "both")
    columns = (
        show_text("of", "run"),
        show_number("step", "after steps", "{:.0f}".format),
        show_number("methods", None, "{:.0f}".format),
        *(show_number(name, None, "{:.2f}".format) for name in names),
    )
    title = "Times that each prediction of the effective batch is off, in the root mean square"
    caption = "Of the methods that ended within the range of exact training on parts of the batch."
    return Table("runs", title, columns, list_rows(pd.DataFrame(lines)), caption)
