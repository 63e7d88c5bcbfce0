"""How an estimator is written on a command line: ``gaussian:0.1``, ``rounding:2``,
``centered(countsketch):0.1``.

    text    =  single [ "+rounding:" bits ... ]           gaussian:0.1+rounding:4
    single  =  "centered(" text ")" [ ":" rate ]          centered(countsketch):0.1
            |  name [ ":" rate or bits ] { "," field "=" value }     rounding:2,group=64

Names are those of the catalog, plain ``rounding`` and ``rounding-rotated`` included. A rate may be
left out and given once for all: ``parse("centered(countsketch)", rate=0.1)``.
"""

from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sketchvar.estimators.catalog import CATALOG, ORACLES, known_rows, nearest
from sketchvar.estimators.combine import Centered, Then, check_then
from sketchvar.estimators.estimator import Estimator, Traits
from sketchvar.estimators.grouped import GroupedRows
from sketchvar.estimators.quantize import StochasticRounding

SINGLE: dict[str, Callable[..., Estimator]] = {
    **{name: make for name, make in CATALOG.items() if not set(name) & set(":+(")},
    "grouped-rows": GroupedRows,
    "rounding": StochasticRounding,
    "rounding-rotated": partial(StochasticRounding, rotate=True),
}
TOLD = {"scores", "y_sq"}  # fields that are not spelled: what an oracle is told of Y
EXAMPLES = "gaussian:0.1, rounding:2, centered(countsketch):0.1, gaussian:0.1+rounding:4"


def parse(text: str, rate: float | None = None, y_sq: Tensor | None = None) -> Estimator:
    """The estimator that ``text`` spells; ``rate`` serves where it names none, ``y_sq`` (‖yᵢ‖²)
    serves oracles.

    Raises ValueError, showing valid spellings and the nearest name, for what it cannot read, for a
    missing rate or ``y_sq``, and for what the estimator itself refuses (a rate outside (0, 1], bits
    other than 1, 2, 4, 8).
    """
    parts = split_outside(text.strip(), "+")
    estimator = parse_single(parts[0], text, rate, y_sq)
    for part in parts[1:]:
        second = parse_single(
            part, text, rate, y_sq
        )  # with a rate, so that what is wrong is that it takes one
        check_then(estimator, second)
        estimator = Then(estimator, second)  # type: ignore[arg-type]  # checked just above
    return estimator


def takes_rate(text: str) -> bool:
    """Whether the spelling leaves a rate open, which ``parse`` then has to be given."""
    single = split_outside(text.strip(), "+")[0].strip()
    if single.startswith("centered("):
        inner, tail = inside(single, text)
        return not tail and takes_rate(inner)
    name, parameter, _ = split_single(single, text)
    return not parameter and parameter_name(name) == "rate"


def split_rate(text: str, rate: float) -> tuple[str, float]:
    """Name and rate: ("gaussian", 0.1) of ``gaussian:0.1``; ``rate`` where it is left open, 1 where
    there is none.
    """
    estimator: Any = parse(text, rate, torch.ones(1))
    spelled = spell(estimator)
    while isinstance(estimator, Centered | Then):
        estimator = estimator.inner if isinstance(estimator, Centered) else estimator.first
    own = getattr(estimator, "rate", None)
    return (spelled, 1.0) if own is None else (spelled.replace(f":{own}", "", 1), own)


def traits_of(text: str) -> Traits:
    """What a caller has to know of the estimator that ``text`` spells, at any rate."""
    return parse(text, 1.0, torch.ones(1)).traits


def spell(estimator: Estimator) -> str:
    """The canonical text of an estimator, which ``parse`` reads back; what an oracle is told of Y
    is not in it.

    Raises ValueError for an estimator that has no name in the catalog.
    """
    if isinstance(estimator, Then):
        return f"{spell(estimator.first)}+{spell(estimator.second)}"
    if isinstance(estimator, Centered):
        inner = spell(estimator.inner)
        name, _, rate = inner.partition(":")
        return (
            f"centered({name}):{rate}"
            if takes_rate(name) and set(rate).isdisjoint(",+")
            else f"centered({inner})"
        )
    values = {f.name: getattr(estimator, f.name) for f in fields(estimator) if f.name not in TOLD}  # type: ignore[arg-type]
    defaults = {f.name: f.default for f in fields(estimator) if f.default is not MISSING}  # type: ignore[arg-type]
    # the name that fixes most of what is not the default
    for name, (made, fixed) in sorted(
        ((n, made_by(m)) for n, m in SINGLE.items()), key=lambda item: -len(item[1][1])
    ):
        if made is type(estimator) and all(
            values[field] == value for field, value in fixed.items()
        ):
            return name + spelled_fields(values, {**defaults, **fixed})
    raise ValueError(f"{estimator} has no spelling; the names are {', '.join(SINGLE)}")


def parse_single(single: str, text: str, rate: float | None, y_sq: Tensor | None) -> Estimator:
    single = single.strip()
    if single.startswith("centered("):
        inner, tail = inside(single, text)
        own = number(tail, "centered", "rate", text) if tail else None
        if own is not None and not takes_rate(inner):
            raise ValueError(
                f"{text!r} gives {inner!r} a rate that it does not take or has already; write"
                f" {EXAMPLES}"
            )
        return Centered(parse(inner, rate if own is None else own, y_sq))
    name, parameter, options = split_single(single, text)
    kind = parameter_name(name)
    if kind is None and (parameter or options):
        raise ValueError(f"{name!r} in {text!r} takes nothing after its name; write {name}")
    arguments: list[Any] = []
    if kind is not None:
        given = (
            number(parameter, name, kind, text) if parameter else rate if kind == "rate" else None
        )
        if given is None:
            raise ValueError(
                f"{name!r} in {text!r} needs {kind}; write"
                f" {name}:{'0.1' if kind == 'rate' else '2'}"
            )
        arguments.append(given)
    if name in ORACLES:
        arguments.append(known_rows(name, y_sq))
    return SINGLE[name](*arguments, **parsed_fields(options, name, text))


def split_single(single: str, text: str) -> tuple[str, str, list[str]]:
    """Name, rate or bits, and further fields, of a spelling without parentheses."""
    head, *options = single.split(",")
    name, _, parameter = (part.strip() for part in head.partition(":"))
    if name not in SINGLE:
        hint = "only centered(...) has parentheses; " if "(" in name else nearest(name, SINGLE)
        raise ValueError(
            f"unknown estimator {name!r} in {text!r}; {hint}write one as in {EXAMPLES}; "
            f"the names are {', '.join(SINGLE)}, centered(...)"
        )
    return name, parameter, options


def inside(single: str, text: str) -> tuple[str, str]:
    """What is between the parentheses of ``centered(...)``, and the rate after them."""
    depth = 0
    for i, letter in enumerate(single):
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and depth == 0:
            tail = single[i + 1 :].strip()
            if tail and not tail.startswith(":"):
                break
            return single[single.index("(") + 1 : i], tail[1:].strip()
    raise ValueError(f"cannot read the parentheses of {text!r}; write centered(countsketch):0.1")


def split_outside(text: str, mark: str) -> list[str]:
    """``text`` split at the marks that are outside parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def parameter_name(name: str) -> str | None:
    """ "rate", "bits" or None: what follows the colon."""
    made, _ = made_by(SINGLE[name])
    first = [f.name for f in fields(made)][:1]
    return first[0] if first else None


def made_by(make: Callable[..., Estimator]) -> tuple[Any, dict[str, Any]]:
    """The class that a catalog entry makes, and the fields that it fixes."""
    return (make.func, make.keywords) if isinstance(make, partial) else (make, {})


def number(word: str, name: str, kind: str, text: str) -> float | int:
    try:
        return float(word) if kind == "rate" else int(word)
    except ValueError:
        raise ValueError(
            f"{word!r} in {text!r} is no {kind} for {name}; write {EXAMPLES}"
        ) from None


def parsed_fields(options: list[str], name: str, text: str) -> dict[str, Any]:
    made, fixed = made_by(SINGLE[name])
    known = {
        f.name: f.default for f in fields(made) if f.default is not MISSING and f.name not in fixed
    }
    known = {
        field: default for field, default in known.items() if not isinstance(default, bool)
    }  # have names: -iid
    values: dict[str, Any] = {}
    for option in options:
        field, _, word = (part.strip() for part in option.partition("="))
        if field not in known:
            raise ValueError(
                f"{name} in {text!r} has no field {field!r}; it has {', '.join(known) or 'none'}"
            )
        values[field] = number(
            word, name, "rate" if isinstance(known[field], float) else field, text
        )
    return values


def spelled_fields(values: dict[str, Any], defaults: dict[str, Any]) -> str:
    parameter = [f":{value}" for field, value in values.items() if field not in defaults]
    return "".join(
        parameter + [f",{f}={v}" for f, v in values.items() if f in defaults and v != defaults[f]]
    )
