"""What an audit says: bias and variance of a layer's output and gradients, and what is biased."""

from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.report.contents import Contents
from sketchvar.analysis.report.table import Table, list_rows, show_number, show_text

LEVEL = 1e-3  # joint: how often something may be called biased where nothing is
WORDS = {
    "bias²": "‖mean − right‖² without what the variance adds to it, over ‖right‖²",
    "variance": "the mean of ‖one draw − mean‖², over ‖right‖²",
    "p": "the chance of a mean so far off without a bias; ! where it is below the level",
    "growth": "N × the error of N draws' average, over the error of one: 1 without a bias",
    "/ minibatch": "over the variance of the right gradient over minibatches, unit: example",
}


def read(folder: Path, rate: float | None = None) -> Contents:
    """All of a folder of ``audit``."""
    rows = records.read_rows(folder / "audit.parquet")
    about = records.read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    return describe(rows, LEVEL, about)


def describe(rows: pd.DataFrame, level: float, about: dict[str, object] | None = None) -> Contents:
    """The table of an audit, and a sentence of what is biased at a joint ``level``."""
    found, left_out = rows[rows["left_out"] == ""], rows[rows["left_out"] != ""]
    limit = level / max(len(found), 1)
    biased = found[found["p_value"] < limit]
    sentences = [
        f"BIASED: {', '.join(biased['part'])}." if len(biased) else "No bias is seen.",
        f"Joint level {level:g} (Bonferroni): p has to stay above {limit:.2g}; an average of many"
        " draws, as of steps, keeps a bias and loses variance.",
    ]
    if not rows["own_pair"].all():
        sentences.append("x and y are normal numbers: a layer's bias may differ at real ones.")
    sentences += [f"Not compared: {row.part} ({row.left_out})." for row in left_out.itertuples()]
    return Contents(
        title=str(rows["layer"].iloc[0]),
        tables=(tabulate_parts(found, limit),),
        sentences=tuple(sentences),
        words=WORDS,
        provenance=about or {},
    )


def tabulate_parts(rows: pd.DataFrame, limit: float) -> Table:
    """One row a part: numbers over ‖right‖², and over the minibatch's variance."""
    shown = rows.assign(biased=rows["p_value"] < limit)
    for field in ("bias_sq", "bias_stderr", "variance", "variance_stderr"):
        shown[f"{field}_relative"] = rows[field] / rows["norm_sq"]
    columns = (
        show_text("part"),
        show_number("bias_sq_relative", "bias²", "{:.2e}".format),
        show_number("bias_stderr_relative", "±", "{:.1e}".format),
        show_number("variance_relative", "variance", "{:.2e}".format),
        show_number("variance_stderr_relative", "±", "{:.1e}".format),
        show_number("p_value", "p", "{:.2g}".format),
        show_number("growth"),
        show_number("bias_sq_ratio", "bias² / minibatch"),
        show_number("variance_ratio", "variance / minibatch"),
    )
    draws, n = int(rows["draws"].max()), int(rows["rows"].max())
    title = f"{rows['layer'].iloc[0]}: {draws} draws, {n} rows; bias² and variance over ‖right‖²"
    caption = f"growth: {draws} × the error of {draws} draws' average, over the error of one"
    return Table("audit", title, columns, list_rows(shown), caption)
