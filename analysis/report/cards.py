"""The page of all estimators, in Markdown, made from their cards; glyphs.py makes its pictures."""

import inspect
import re
from collections.abc import Iterable

import torch
from torch import nn

from sketchvar.analysis.report import glyphs
from sketchvar.analysis.report.estimators import COLUMNS, ROWS, describe
from sketchvar.analysis.report.table import write_percent
from sketchvar.estimators import CATALOG, Choice, Estimator, choices, sketch_linears
from sketchvar.estimators.coarse import Coarse
from sketchvar.estimators.residual import Residual

RATE = 0.1
PARTS = ("Variance", "Bytes", "Time", "Use", "Raises", "Source")
TOP = (
    "# Estimators\n\n"
    "Made by `sketchvar estimators --markdown` from the docstrings of the classes, its pictures by"
    " `sketchvar estimators --pictures estimators/pictures`;\na test keeps it up to date.\n\n"
    "X is n × p, Y is n × q, G = XᵀY, Q = ‖X‖²‖Y‖², C = ‖G‖², D = Σᵢ ‖xᵢ‖²‖yᵢ‖². Variance is"
    " E‖Ĝ − G‖², of a biased\nestimator its mean square error. A rate is the fraction of X's"
    " numbers that is kept: k of n rows, r of p features.\nAny of them can be written with its rate"
    " (`gaussian:0.1`), inside `centered(...)`, and a sketch or sample with\n`+rounding:BITS`"
    " behind it. Bytes are over those of an X of"
    f" {ROWS} × {COLUMNS} float32 numbers, at rate {RATE:g} where there is one.\n\n"
    f"Pictures are of {glyphs.SIZE} rows or features at rate {glyphs.RATE}, red above zero and blue"
    " below: Sᵀ of one draw, for rows whose norms\ngrow from left to right; a small X and what"
    " stands for it in one estimate; or the values of a grid, each with its\nchance over the"
    " numbers that are rounded.\n"
)


def write_page() -> str:
    """The whole page: a table of all names, then the card of each class, with a picture."""
    made = choices(list(CATALOG), [RATE])
    kinds: dict[type[Estimator], list[Choice]] = {}
    for choice in made:
        kinds.setdefault(type(choice.estimator), []).append(choice)
    lines = [TOP]
    lines += ["| name | class | bytes | in a layer | to know |", "|---|---|---|---|---|"]
    lines += [write_line(choice) for choice in made]
    for kind, named in kinds.items():
        lines += ["", *write_card(kind, named)]
    return "\n".join(lines) + "\n"


def write_line(choice: Choice) -> str:
    """One name in the table."""
    kind = type(choice.estimator).__name__
    kept = choice.estimator.kept_bytes(ROWS, COLUMNS, torch.float32) / (4 * ROWS * COLUMNS)
    usable = "yes" if is_usable(choice.estimator) else "no"
    cells = [f"`{choice.name}`", f"[{kind}](#{kind.lower()})", write_percent(kept), usable]
    return f"| {' | '.join([*cells, describe(choice)])} |"


def write_card(kind: type[Estimator], named: list[Choice]) -> list[str]:
    """What a class keeps, its parts one by one, and a picture for each of its names."""
    about, parts = read_card(kind)
    names = ", ".join(f"`{choice.name}`" for choice in named)
    lines = [f"## {kind.__name__}", "", names, "", about, ""]
    lines += [f"- **{part}**: {text}" for part, text in parts.items()]
    if kind is Residual:
        lines += [f"- `{c.name}`: {read_card(c.estimator.coarse)[0]}" for c in named]  # type: ignore[attr-defined]
    for choice in named:
        lines += ["", f"`{choice.name}`"] if len(named) > 1 else []
        lines += ["", f"![{choice.name}](pictures/{glyphs.name_picture(choice.name)}.png)"]
    return lines


def read_card(kind: type[Estimator] | type[Coarse]) -> tuple[str, dict[str, str]]:
    """What a docstring says before its parts, and its parts, in Markdown; without examples."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("\n>>>")[0]
    words = re.split(rf"(?:^|(?<=\s))({'|'.join(PARTS)}|Bytes and time)(?::| (?=as ))", text)
    found = {part: tidy([body]) for part, body in zip(words[1::2], words[2::2], strict=True)}
    return tidy([words[0]]), found


def tidy(paragraphs: Iterable[str]) -> str:
    """One line, with code in single quotes."""
    text = re.sub(r"\s+", " ", " ".join(paragraphs)).replace("``", "`").strip()
    return re.sub(r"[.;:]$", "", text) + "."


def is_usable(estimator: Estimator) -> bool:
    """Whether a layer can train with it."""
    try:
        sketch_linears(nn.Linear(2, 2), estimator)
    except ValueError:
        return False
    return True
