"""Option: one option of the command line, as a field of a frozen dataclass.

    @dataclass(frozen=True)
    class Asked(Shown):
        seed: int = option("--seed", default=0, type=int, help="of the draws")

``declare`` tells argparse of all fields and ``read`` makes the dataclass of what was typed.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

SECTIONS = ("task", "", "output")  # of the help, in this order
T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """What argparse is told of one option: its flags (none: it stands without one), the part of the
    help in which it is listed, and the group of options of which one can be given.
    """

    flags: tuple[str, ...]
    section: str
    group: str
    words: Mapping[str, Any]


def option(
    *flags: str, default: Any = None, section: str = "", group: str = "", **words: Any
) -> Any:
    """A field of a command's options; ``words`` go to argparse. Of a ``group`` one can be
    given.
    """
    return field(default=default, metadata={"option": Option(flags, section, group, words)})


def declare(parser: argparse.ArgumentParser, asked: type, defaults: Mapping[str, Any]) -> None:
    """Tell argparse of all options of a command, with ``defaults`` where they are not the usual."""
    found = [(each, each.metadata["option"]) for each in fields(asked)]
    places: dict[str, Any] = {"": parser}
    for each, one in sorted(found, key=lambda pair: SECTIONS.index(pair[1].section)):
        if one.section not in places:
            places[one.section] = parser.add_argument_group(one.section)
        place = places[one.section]
        if one.group:
            if one.group not in places:
                places[one.group] = place.add_mutually_exclusive_group()
            place = places[one.group]
        words = dict(one.words)
        if one.flags:
            usual = defaults.get(each.name, each.default)
            words |= {"dest": each.name}
            words |= {"default": list(usual) if isinstance(usual, tuple) else usual}
        place.add_argument(*(one.flags or (each.name,)), **words)


def read(asked: type[T], found: argparse.Namespace) -> T:
    """The options of a command, of what argparse has read."""
    values = {each.name: getattr(found, each.name) for each in fields(asked)}  # type: ignore[arg-type]
    return asked(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Says what each default is, once, and as it would be typed."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help or "", action.default
        if default in (None, False, []) or "(default: " in text:
            return text
        if isinstance(default, list):
            typed = (",".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in default)
            return f"{text} (default: {' '.join(typed)})"
        return super()._get_help_string(action)


@dataclass(frozen=True)
class Shown:
    """The options of every command."""

    quiet: bool = option(
        "--quiet",
        default=False,
        section="output",
        action="store_true",
        help="say nothing of progress, notes and files",
    )
    json: bool = option(
        "--json",
        default=False,
        section="output",
        action="store_true",
        help="print tables as JSON, and nothing else on stdout",
    )
