"""Command and Group: what the command line is made of."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from sketchvar.analysis.commands.option import Help, declare

if TYPE_CHECKING:
    from sketchvar.analysis.commands.screen import Screen


@dataclass(frozen=True)
class Command:
    """A name, one line and a paragraph of help, the dataclass of its options, and what it does with
    them; ``defaults`` where they are not the usual ones.
    """

    name: str
    help: str
    about: str
    asked: type
    main: Callable[[Any, "Screen"], int | None]
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Commands under one name."""

    name: str
    help: str
    about: str
    kind: str  # what one of them is called in the help
    commands: tuple[Command, ...]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all other errors here do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add(commands: Any, what: Command | Group) -> None:
    """Tell argparse of a command, or of a group and all its commands."""
    parser = commands.add_parser(
        what.name, help=what.help, description=what.about, formatter_class=Help
    )
    if isinstance(what, Group):
        inner = parser.add_subparsers(dest=what.kind, required=True, metavar=what.kind.upper())
        for command in what.commands:
            add(inner, command)
        return
    declare(parser, what.asked, what.defaults)
    parser.set_defaults(parser=parser, this=what)


def flatten(whole: tuple[Command | Group, ...]) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Every command with the words that call it."""
    for what in whole:
        if isinstance(what, Command):
            yield (what.name,), what
        else:
            yield from (((what.name, *words), one) for words, one in flatten(what.commands))
