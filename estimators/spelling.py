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

from torch import Tensor

from sketchvar.estimators.both import BothRounded
from sketchvar.estimators.catalog import CATALOG, suggest, tell
from sketchvar.estimators.combine import Centered, Then, check_then
from sketchvar.estimators.countsketch import CountSketch
from sketchvar.estimators.estimator import Estimator
from sketchvar.estimators.floating import GridRounding
from sketchvar.estimators.grouped import GroupedRows
from sketchvar.estimators.quantize import StochasticRounding
from sketchvar.estimators.row_bits import RowBits

COARSE = [name for name, make in CATALOG.items() if "coarse" in getattr(make, "keywords", {})]
SINGLE: dict[str, Callable[..., Estimator]] = {
    **{name: make for name, make in CATALOG.items() if not set(name) & set(":+(")},
    "grouped-rows": GroupedRows,
    # coarse parts with an unbiased estimator of what is left
    **{f"{name}-countsketch": partial(CATALOG[name], inner=CountSketch) for name in COARSE},
    "mxfp4-both": partial(
        BothRounded,
        of_x=GridRounding("e2m1", 32, "power", axis="tokens"),
        of_y=GridRounding("e2m1", 32, "power", axis="tokens"),
    ),
    "fp8-both": partial(
        BothRounded,
        of_x=GridRounding("e4m3", axis="tokens"),
        of_y=GridRounding("e4m3", axis="tokens"),
    ),
    # the published recipe: X to the nearest, Y at random, tokens mixed 16 at a time
    "nvfp4-recipe": partial(
        BothRounded,
        of_x=GridRounding("e2m1", 16, "e4m3", "tokens", 16, nearest=True),
        of_y=GridRounding("e2m1", 16, "e4m3", "tokens", 16),
    ),
    "grid": GridRounding,
    "grid-nearest": partial(GridRounding, nearest=True),
    "row-bits": RowBits,
    "rounding": StochasticRounding,
    "rounding-rotated": partial(StochasticRounding, rotate=True),
}
WORDS = {"grid", "scale", "axis"}  # fields that are words, not numbers
TOLD = {"scores", "y_sq"}  # fields that are not spelled: what an oracle is told of Y
EXAMPLES = "gaussian:0.1, rounding:2, centered(countsketch):0.1, gaussian:0.1+rounding:4"


def parse(text: str, rate: float | None = None, y_sq: Tensor | None = None) -> Estimator:
    """Parse ``text``, the spelling of an estimator; ``rate`` serves where it names none, ``y_sq``
    (n, ‖yᵢ‖²) serves oracles.

    >>> parse("centered(countsketch)", rate=0.1)
    Centered(inner=CountSketch(rate=0.1, balanced=True))

    Raises ValueError, showing valid spellings and the nearest name, for what it cannot read, for a
    missing rate or ``y_sq``, and for what the estimator itself refuses (a rate outside (0, 1], bits
    other than 1, 2, 4, 8).
    """
    return tell(parse_untold(text, rate), y_sq)


def parse_untold(text: str, rate: float | None = None) -> Estimator:
    """Parse as ``parse`` does, but leave an oracle without what it has to be told of Y."""
    parts = split_outside(text.strip(), "+")
    estimator = parse_single(parts[0], text, rate)
    for part in parts[1:]:
        # a second sketch gets a rate, so that it is refused for what it is and not for lacking one
        second = parse_single(part, text, rate)
        check_then(estimator, second)
        estimator = Then(estimator, second)  # type: ignore[arg-type]  # checked just above
    return estimator


def takes_rate(text: str) -> bool:
    """Whether the spelling leaves a rate open, which ``parse`` then has to be given."""
    single = split_outside(text.strip(), "+")[0].strip()
    if single.startswith("centered("):
        inner, tail = split_centered(single, text)
        return not tail and takes_rate(inner)
    name, parameter, _ = split_single(single, text)
    return not parameter and find_parameter(name) == "rate"


def spell(estimator: Estimator, rate: bool = True) -> str:
    """Spell an estimator as ``parse`` reads it, with its rate or without; what an oracle is told of
    Y is left out.

    Raises ValueError for an estimator that has no name in the catalog.
    """
    if isinstance(estimator, Then):
        return f"{spell(estimator.first, rate)}+{spell(estimator.second)}"
    if isinstance(estimator, Centered):
        inner = spell(estimator.inner, rate)
        name, _, tail = inner.partition(":")
        at_the_end = rate and takes_rate(name) and set(tail).isdisjoint(",+")
        return f"centered({name}):{tail}" if at_the_end else f"centered({inner})"
    values = {f.name: getattr(estimator, f.name) for f in fields(estimator) if f.name not in TOLD}  # type: ignore[arg-type]
    defaults = find_defaults(type(estimator))
    # the name that fixes most of what is not the default
    for name, (kind, fixed) in sorted(
        ((n, split_partial(m)) for n, m in SINGLE.items()), key=lambda item: -len(item[1][1])
    ):
        if kind is type(estimator) and all(values[field] == fixed[field] for field in fixed):
            left_out = set() if rate else {"rate"}
            shown = {field: value for field, value in values.items() if field not in left_out}
            return name + spell_fields(shown, {**defaults, **fixed})
    raise ValueError(f"{estimator} has no spelling; the names are {', '.join(SINGLE)}")


def parse_single(single: str, text: str, rate: float | None) -> Estimator:
    single = single.strip()
    if single.startswith("centered("):
        inner, tail = split_centered(single, text)
        own = parse_number(tail, "centered", "rate", text) if tail else None
        if own is not None and not takes_rate(inner):
            raise ValueError(
                f"{text!r} gives {inner!r} a rate that it does not take or has already; write"
                f" {EXAMPLES}"
            )
        return Centered(parse_untold(inner, rate if own is None else own))
    name, parameter, options = split_single(single, text)
    kind = find_parameter(name)
    if kind is None:
        if parameter or (options and not find_defaults(split_partial(SINGLE[name])[0])):
            raise ValueError(f"{name!r} in {text!r} takes nothing after its name; write {name}")
        return SINGLE[name](**parse_fields(options, name, text))
    given: float | int | str | None = rate if kind == "rate" else None
    if parameter:
        given = parse_word(parameter, name, kind, text)
    if given is None:
        example = {"rate": "0.1", "grid": "e2m1"}.get(kind, "2")
        raise ValueError(f"{name!r} in {text!r} needs {kind}; write {name}:{example}")
    return SINGLE[name](given, **parse_fields(options, name, text))


def split_single(single: str, text: str) -> tuple[str, str, list[str]]:
    """Split a spelling without parentheses into name, rate or bits, and further fields."""
    head, *options = single.split(",")
    name, _, parameter = (part.strip() for part in head.partition(":"))
    if name not in SINGLE:
        hint = "only centered(...) has parentheses; " if "(" in name else suggest(name, SINGLE)
        raise ValueError(
            f"unknown estimator {name!r} in {text!r}; {hint}write one as in {EXAMPLES}; "
            f"the names are {', '.join(SINGLE)}, centered(...)"
        )
    return name, parameter, options


def split_centered(single: str, text: str) -> tuple[str, str]:
    """Split ``centered(...)`` into what is between its parentheses and the rate after them."""
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
    """Split ``text`` at the marks that are outside parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def find_parameter(name: str) -> str | None:
    """Find what follows the colon of a name: "rate", "bits" or None."""
    kind, fixed = split_partial(SINGLE[name])
    return next(
        (f.name for f in fields(kind) if f.default is MISSING and f.name not in fixed), None
    )


def find_defaults(kind: Any) -> dict[str, Any]:
    """Find the fields of a class that have a default, but for what an oracle is told."""
    return {
        f.name: f.default for f in fields(kind) if f.default is not MISSING and f.name not in TOLD
    }


def split_partial(make: Callable[..., Estimator]) -> tuple[Any, dict[str, Any]]:
    """Split a catalog entry into the class that it makes and the fields that it fixes."""
    return (make.func, make.keywords) if isinstance(make, partial) else (make, {})


def parse_word(word: str, name: str, kind: str, text: str) -> float | int | str:
    """Parse what stands for a rate, a number or, of a grid, a word."""
    return word if kind in WORDS else parse_number(word, name, kind, text)


def parse_number(word: str, name: str, kind: str, text: str) -> float | int:
    try:
        return float(word) if kind == "rate" else int(word)
    except ValueError:
        raise ValueError(
            f"{word!r} in {text!r} is no {kind} for {name}; write {EXAMPLES}"
        ) from None


def parse_fields(options: list[str], name: str, text: str) -> dict[str, Any]:
    kind, fixed = split_partial(SINGLE[name])
    known = {
        field: default
        for field, default in find_defaults(kind).items()
        if field not in fixed and not isinstance(default, bool)  # a flag has a name: -iid
    }
    values: dict[str, Any] = {}
    for option in options:
        field, _, word = (part.strip() for part in option.partition("="))
        if field not in known:
            raise ValueError(
                f"{name} in {text!r} has no field {field!r}; it has {', '.join(known) or 'none'}"
            )
        number = "rate" if isinstance(known[field], float) else field
        values[field] = parse_word(word, name, number, text)
    return values


def spell_fields(values: dict[str, Any], defaults: dict[str, Any]) -> str:
    parameter = "".join(f":{value}" for field, value in values.items() if field not in defaults)
    further = (f",{f}={v}" for f, v in values.items() if f in defaults and v != defaults[f])
    return parameter + "".join(further)
