"""What a run says, or the files of a Probe: the ratio of every layer and estimator, through
training, with bytes and noise scale.
"""

from functools import partial
from pathlib import Path

import pandas as pd

from sketchvar.analysis import records
from sketchvar.analysis.folder import Folder, about_probe, kept_dtype, rows_of
from sketchvar.analysis.noise.moving import scale_of_steps
from sketchvar.analysis.noise.scale import TOTAL, batch_fraction, noise_scale
from sketchvar.analysis.noise.select import at_rate, choose_rate
from sketchvar.analysis.noise.wide import SHARES, widen
from sketchvar.analysis.report import plan
from sketchvar.analysis.report.contents import Contents, Picture
from sketchvar.analysis.report.table import (
    Column,
    Table,
    list_rows,
    make_table,
    show_error,
    show_number,
    show_text,
    write_digits,
    write_percent,
    write_short,
    write_whole,
)
from sketchvar.analysis.report.verdict import judge_ratios

WORDS = {
    "variance": (
        "how far an estimate of a weight gradient is from it, E‖Ĝ − G‖², summed over its entries"
    ),
    "minibatch variance": "the same of the gradient over the draw of the minibatch (unit: example)",
    "ratio": "variance / minibatch variance; 1 is as noisy as the minibatch itself",
    "effective batch": (
        "1 / (1 + ratio): a step is as noisy as an exact one on this part of its batch"
    ),
    "rate": "what is kept of a layer's input X, as a fraction of its rows (or of its columns)",
    "bytes kept": ("what is kept of X from forward to backward, indices, scales and seed included"),
    "B": "the noise scale",
    "noise scale": (
        "in examples: the batch on which the gradient is as large as its noise; a dash where the"
        " noise hides the gradient"
    ),
    "oracle": "told about Y in advance, which no layer can be: a bound, not a choice",
}
CAPTION = (
    "1 = as noisy as the minibatch itself; below 1 = less noisy. B: gradient noise scale in"
    " examples, from this step alone; –: the noise hides the gradient. Effective batch: as noisy as"
    " an exact step on this part of the batch. An estimator without a rate keeps its own bytes."
)


def read(folder: Path, rate: float | None = None) -> Contents:
    """All of a run, finished or not, or of the files that a Probe wrote.

    ``rate`` is that of pictures and of the table of layers: 0.1 or the least unless given. Raises
    ValueError for a folder without rows and for a rate that was not measured.
    """
    files, rows = Folder(folder), rows_of(folder)
    rate = choose_rate(rows, rate)
    about = records.read_json(files.provenance) if files.provenance.exists() else {}
    probed = dict(about_probe(folder))
    covered = pd.DataFrame(probed.pop("coverage", {}))
    if files.coverage.exists():
        covered = records.read_rows(files.coverage)
    rows = add_bytes(rows, folder)
    last = rows[rows["step"] == rows["step"].max()]
    details = [summarise(last), tabulate_scale(rows)]
    pictures = list_pictures(files, rows, rate)
    if (folder / "plan.json").exists():
        made = records.read_json(folder / "plan.json")
        details += plan.list_tables(made)
        pictures += plan.list_pictures(made, "plan")
    if len(covered):
        details.append(make_table(covered, "coverage", "Coverage: which parameters were measured"))
    about = about or probed
    return Contents(
        title=str(about.get("run") or folder.name),
        tables=(tabulate_layers(rows, rate),),
        pictures=pictures,
        details=tuple(details),
        words=WORDS,
        provenance=about,
        verdict=judge_ratios(rows, rate),
    )


def list_pictures(files: Folder, rows: pd.DataFrame, rate: float) -> tuple[Picture, ...]:
    """Every figure of a run; that of draws is left out where the run has not reached it."""
    from sketchvar.analysis.noise import figures
    from sketchvar.analysis.noise.kinds_figures import noise_by_kind
    from sketchvar.analysis.noise.scale_figures import noise_scale_through_training

    step = int(rows["step"].max())
    found = [
        Picture(
            "ratio_by_layer",
            f"Ratio of every layer, rate {rate:g}, step {step}",
            partial(figures.ratio_by_layer, rows, rate),
        ),
        Picture(
            "ratio_through_training",
            f"Median ratio over layers, rate {rate:g}, and the quartiles of layers",
            partial(figures.ratio_through_training, rows, rate),
        ),
        Picture(
            "alpha_through_training",
            "How far the rows of X and Y of each layer point the same way",
            partial(figures.alpha_through_training, rows),
        ),
    ]
    if files.draws.exists():
        drawn = records.read_rows(files.draws)
        caption = f"Closed forms beside repeated draws, on layer {drawn['layer'].iloc[0]}"
        found.append(
            Picture("closed_form_and_draws", caption, partial(figures.closed_form_and_draws, drawn))
        )
    batch = int(rows["examples"].max())
    scale = Picture(
        "noise_scale",
        "Gradient noise scale of each layer and of all together, from each step alone",
        partial(noise_scale_through_training, noise_scale(rows, decay=0), batch),
    )
    found.append(scale)
    if files.noise.exists():
        # measured steps lie far apart: averages would be those of the first, whose signal is large
        whole = scale_of_steps(records.read_rows(files.noise))
        caption = "Gradient noise scale of the whole model and of each kind of its parameters,"
        found.append(
            Picture(
                "noise_by_kind",
                f"{caption} from each step alone",
                partial(noise_by_kind, whole, batch),
            )
        )
    return tuple(found)


def tabulate_layers(rows: pd.DataFrame, rate: float) -> Table:
    """The ratio of every layer and estimator at the last step and one rate; shares of X's bytes
    stand above, all layers together below.
    """
    step, shown = rows["step"].max(), at_rate(rows, rate)
    marks = find_remarks(shown)
    wide = widen(rows, rate).reset_index()
    lines = list_rows(wide)
    heads = tuple(line for line in lines if line["layer"] == SHARES[0])
    feet = tuple(line for line in lines if line["layer"] in ("median", TOTAL, SHARES[1]))
    names = [name for name in dict.fromkeys(shown["estimator"]) if name in wide]
    columns = [
        show_text("layer"),
        show_number("minibatch_example", "minibatch variance", "{:.1e}".format),
        show_number("noise_scale", "B", write_whole),
        *(show_ratio(name, marks[name]) for name in names),
    ]
    return Table(
        "ratio_by_layer",
        f"Estimator variance / minibatch variance (by example), rate {rate:g}, step {step}",
        tuple(columns),
        lines[len(heads) : len(lines) - len(feet)],
        CAPTION,
        heads=heads,
        feet=feet,
    )


def show_ratio(name: str, mark: str) -> Column:
    """Ratios of an estimator, and its shares."""
    ratio = show_number(name, f"{name} ({mark})" if mark else name, write_digits)
    share = show_number(name, name, write_percent)
    return Column(
        ratio.title, lambda row: (share if row["layer"] in SHARES else ratio).show(row), heat=name
    )


def summarise(last: pd.DataFrame) -> Table:
    """Median, least and most of the ratio over layers for every estimator and rate, and what all
    together leave of a batch: of the rows of one step.
    """
    keys = ["estimator", "rate"]
    by = last.groupby(keys, sort=False)
    ratios = by["ratio"].agg(median="median", least="min", most="max")
    sums = by[["kept_bytes", "x_bytes"]].sum(min_count=1)
    ratios["bytes"], ratios["kept"] = sums["kept_bytes"], sums["kept_bytes"] / sums["x_bytes"]
    found = batch_fraction(last)
    total = found[found["layer"] == TOTAL].set_index(keys)
    ratios["all layers"], ratios["effective batch"] = total["ratio"], total["fraction"]
    marks = find_remarks(last)
    table = ratios.reset_index().assign(remark=lambda lines: lines["estimator"].map(marks))
    numbers = (show_number(name) for name in ("median", "least", "most", "all layers"))
    columns = (
        show_text("estimator"),
        show_number("rate", None, write_short),
        show_number("bytes", "bytes kept", write_whole),
        show_number("kept", "of X's", write_percent),
        *numbers,
        show_number("effective batch", None, write_percent),
        *([show_text("remark")] if any(marks.values()) else []),
    )
    title = f"Ratio over the layers, step {last['step'].iloc[0]}"
    return Table("ratio_over_layers", title, columns, list_rows(table))


def tabulate_scale(rows: pd.DataFrame) -> Table:
    """The noise scale of all layers at every measured step, each from that step alone."""
    scale = noise_scale(rows, decay=0)
    total = scale[scale["layer"] == TOTAL]
    columns = (
        show_number("step", None, write_whole),
        show_error("noise_scale", "noise scale"),
        show_number("noise_scale_least", "at least"),
    )
    fields = ["step", "noise_scale", "noise_scale_stderr", "noise_scale_least"]
    title = "Noise scale of all layers, in examples"
    return Table("noise_scale", title, columns, list_rows(total[fields]))


def find_remarks(rows: pd.DataFrame) -> dict[str, str]:
    """What keeps each estimator from being compared with others as it is: "oracle", "biased"."""
    once = rows.drop_duplicates("estimator").set_index("estimator")
    return {
        str(name): "oracle" if line["oracle"] else "biased" if line["biased"] else ""
        for name, line in once.iterrows()
    }


def add_bytes(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Add the bytes of X where rows of an earlier version do not have them: by the precision that
    the run says it keeps X in; NaN where nothing says it.
    """
    if "x_bytes" in rows and rows["x_bytes"].notna().all():
        return rows
    try:
        each: float = kept_dtype(folder, rows).itemsize
    except ValueError:
        each = float("nan")
    return rows.assign(x_bytes=rows["rows"] * rows["p"] * each)
