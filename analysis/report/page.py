"""Report: one self-contained HTML page for a run: figures, tables, coverage, plan, provenance,
words.
"""

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sketchvar.analysis import records
from sketchvar.analysis.folder import Folder, rows_of
from sketchvar.analysis.noise.scale import TOTAL, batch_fraction, noise_scale
from sketchvar.analysis.noise.select import at_rate, by_unit, choose_rate
from sketchvar.analysis.study import figures as pictures
from sketchvar.analysis.study.figures import noise_scale_through_training

PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>$title</title>
<style>
body { font: 15px/1.45 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 0.6em 0 1.4em; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: 0.15em 0.7em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child, .words td { text-align: left; white-space: normal }
thead th { border-bottom: 1px solid #666; vertical-align: bottom; max-width: 8em }
thead th { white-space: normal; overflow-wrap: break-word }
figure { margin: 1em 0 } figure img { max-width: 100%; height: auto } figcaption { font-size: 13px; color: #555 }
@media print { body { margin: 0; max-width: none; font-size: 10pt } table { font-size: 7.5pt }
  figure, tr { break-inside: avoid } h2 { break-after: avoid } }
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")
WORDS = {
    "variance": (
        "how far an estimate of a weight gradient is from it, E‖Ĝ − G‖², summed over its entries"
    ),
    "ratio": (
        "that variance over the minibatch variance (unit: example); 1 is as noisy as the minibatch"
        " itself"
    ),
    "effective batch": (
        "1 / (1 + ratio): a step is as noisy as an exact one on this part of its batch"
    ),
    "rate": "what is kept of a layer's input X, as a fraction of its rows (or of its columns)",
}
CAPTIONS = {
    "ratio_by_layer": "Ratio of every layer at the last measured step",
    "ratio_through_training": "Median ratio over layers, by either unit of the minibatch",
    "alpha_through_training": "How far the rows of X and Y of each layer point the same way",
    "closed_form_and_draws": "Closed forms beside repeated draws, on one layer",
    "noise_scale": "Gradient noise scale of each layer and of all together",
}


def report(run: Path, rate: float | None = None) -> str:
    """The page of a run's folder, finished or not, or of one that a Probe wrote to; it loads
    nothing from elsewhere.

    ``rate`` is that of the figures and of the table of layers: 0.1 or the smallest unless given.
    Raises ValueError for a folder without rows and for a rate that was not measured.
    """
    folder, rows = Folder(run), rows_of(run)
    rate = choose_rate(rows, rate)
    about = records.read_json(folder.provenance) if folder.provenance.exists() else {}
    draws = records.read_rows(folder.draws) if folder.draws.exists() else None
    drawn = pictures.of_run(rows, draws, by_unit(rows), rate)
    drawn["noise_scale"] = noise_scale_through_training(
        noise_scale(rows, decay=0), int(rows["examples"].max())
    )
    last = rows[rows["step"] == rows["step"].max()]
    step = int(last["step"].iloc[0])
    parts = {
        "Words": words(WORDS),
        f"Ratios over the layers, step {step}": table(over_layers(last)),
        f"Ratio by layer, rate {rate:g}, step {step}": "".join(
            table(part) for part in in_parts(by_layer(last, rate))
        ),
        "Figures": "".join(embedded(figure, CAPTIONS[name]) for name, figure in drawn.items()),
        "Noise scale of all layers, in examples": table(through_training(rows)),
    }
    if (run / "plan.json").exists():
        parts["Plan"] = planned(records.read_json(run / "plan.json"))
    if folder.coverage.exists():
        parts["Coverage"] = table(records.read_rows(folder.coverage))
    parts["Provenance"] = (
        words(flat(about)) if about else "<p>No run.json: these rows were written by a Probe.</p>"
    )
    body = "\n".join(f"<h2>{escape(title)}</h2>\n{part}" for title, part in parts.items())
    return PAGE.substitute(title=escape(f"sketchvar: {about.get('run', run.name)}"), body=body)


def over_layers(last: pd.DataFrame) -> pd.DataFrame:
    """Median, least and most of the ratio over layers for every estimator and rate, and what all
    together leave of a batch, with a remark: of the rows of one step.
    """
    keys = ["estimator", "rate"]
    marks = last.drop_duplicates("estimator").set_index("estimator")[["oracle", "biased"]]
    ratios = last.groupby(keys, sort=False)["ratio"].agg(median="median", least="min", most="max")
    found = batch_fraction(last)
    total = found[found["layer"] == TOTAL].set_index(keys)
    ratios["all layers"], ratios["effective batch"] = total["ratio"], total["fraction"]
    return ratios.reset_index().assign(
        remark=lambda lines: [remark(*marks.loc[name]) for name in lines["estimator"]]
    )


def remark(oracle: bool, biased: bool) -> str:
    """What keeps an estimator from being compared with others as it is."""
    if oracle:
        return "oracle: told about Y"
    return "biased: its mean squared error" if biased else ""


def by_layer(last: pd.DataFrame, rate: float) -> pd.DataFrame:
    """The ratio of every layer and estimator at one rate, beside the layer's minibatch variance and
    noise scale.
    """
    shown = at_rate(last, rate)
    ratios = shown.pivot_table(
        index="layer", columns="estimator", values="ratio", sort=False, dropna=False
    )
    minibatch = shown.drop_duplicates("layer").set_index("layer")["minibatch_example"]
    scale = noise_scale(shown, decay=0).set_index("layer")["noise_scale"]
    ratios.insert(0, "noise scale", scale.reindex(ratios.index))
    ratios.insert(0, "minibatch variance", minibatch.reindex(ratios.index))
    return ratios.rename_axis(columns=None).reset_index()


def in_parts(wide: pd.DataFrame, first: int = 3, more: int = 8) -> list[pd.DataFrame]:
    """A table as several that fit on paper: each with the ``first`` columns and so many
    ``more``.
    """
    names = list(wide.columns)
    return [wide[names[:first] + names[i : i + more]] for i in range(first, len(names), more)]


def through_training(rows: pd.DataFrame) -> pd.DataFrame:
    """The noise scale of all layers at every measured step, each from that step alone."""
    scale = noise_scale(rows, decay=0)
    return scale[scale["layer"] == TOTAL][["step", "noise_scale"]].rename(
        columns={"noise_scale": "noise scale"}
    )


def planned(plan: Mapping[str, Any]) -> str:
    """What ``sketchvar plan`` wrote: budget and totals, and the estimator of every layer."""
    budget = {
        f"budget of {name}": value
        for name, value in plan.get("budget", {}).items()
        if value is not None
    }
    sums = {name.replace("_", " "): value for name, value in plan.get("totals", {}).items()}
    return words(budget | sums) + words(plan.get("layers", {}))


def table(rows: pd.DataFrame) -> str:
    """A table with all text escaped; numbers with four digits, a dash where there is none."""
    return rows.to_html(
        index=False, border=0, justify="right", na_rep="–", float_format=number, escape=True
    )


def words(lines: Mapping[str, Any]) -> str:
    """Names and what they are."""
    cells = (
        (name, number(value) if isinstance(value, float) else str(value))
        for name, value in lines.items()
    )
    body = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>\n" for name, text in cells
    )
    return f'<table class="words">\n{body}</table>\n' if body else ""


def number(value: float) -> str:
    """Four digits, and no exponent for what is large."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A dictionary of dictionaries as one: "study seed" -> 0."""
    lines: dict[str, Any] = {}
    for name, value in content.items():
        lines |= (
            flat(value, f"{prefix}{name} ")
            if isinstance(value, Mapping)
            else {prefix + name: value}
        )
    return lines


def embedded(figure: Figure, caption: str) -> str:
    """The figure as a PNG (150 dpi) in the page itself."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    plt.close(figure)
    data, text = base64.b64encode(file.getvalue()).decode(), escape(caption)
    return (
        f'<figure><img alt="{text}"'
        f' src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>\n'
    )
