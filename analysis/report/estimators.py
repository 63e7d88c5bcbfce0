"""What each estimator is: its class, what it keeps, and what to know of it."""

import torch

from sketchvar.analysis.report.table import Table, show_number, show_text, write_percent
from sketchvar.estimators import CATALOG, Choice, choices

ROWS, COLUMNS = 4096, 1024  # of the X whose bytes are told


def list_estimators(rate: float) -> Table:
    """The catalog in a table; bytes at one rate, of those that take one, for X of float32."""
    rows = []
    for choice in choices(list(CATALOG), [rate]):
        estimator = choice.estimator
        kept = estimator.kept_bytes(ROWS, COLUMNS, torch.float32)
        rows.append(
            {
                "estimator": choice.name,
                "class": type(estimator).__name__,
                "kept": kept / (4 * ROWS * COLUMNS),
                "takes_rate": choice.takes_rate,
                "oracle": choice.oracle,
                "biased": choice.biased,
                "closed_form": not choice.no_closed_form,
                "note": describe(choice),
                "about": (type(estimator).__doc__ or "").split("\n\n")[0].replace("\n", " "),
            }
        )
    columns = (
        show_text("estimator"),
        show_number("kept", "bytes / X's", write_percent),
        show_text("class"),
        show_text("note"),
    )
    title = (
        f"Estimators, at rate {rate:g} where they take one, of X with {ROWS} × {COLUMNS} entries"
    )
    caption = (
        "Any of them can be written with its rate (gaussian:0.1), inside centered(...), and a"
        " sketch or sample with +rounding:BITS behind it. help(sketchvar.CLASS) says the rest."
    )
    return Table("estimators", title, columns, tuple(rows), caption)


def describe(choice: Choice) -> str:
    """What keeps an estimator from being used as any other."""
    notes = []
    if choice.oracle:
        notes.append("oracle: told about Y")
    if choice.biased:
        notes.append("biased")
    if choice.no_closed_form:
        notes.append("no closed form")
    if choice.estimator.traits.slow_form:
        notes.append("slow closed form")
    return ", ".join(notes)
