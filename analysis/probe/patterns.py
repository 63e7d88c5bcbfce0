"""Patterns: layers by name, as ``fnmatch`` has it ("encoder.*.query")."""

from collections.abc import Collection
from fnmatch import fnmatchcase

LEFT_OUT = "left out: layers= does not name it"


def is_named(layer: str, patterns: Collection[str]) -> bool:
    """Whether a layer is one of the patterns, or matches one."""
    return any(layer == pattern or fnmatchcase(layer, pattern) for pattern in patterns)


def check_patterns(option: str, patterns: Collection[str], layers: Collection[str]) -> None:
    """Raise ValueError for a pattern that names none of the layers."""
    for pattern in patterns:
        if pattern != "*" and not any(is_named(layer, [pattern]) for layer in layers):
            raise ValueError(
                f"{option}= names {pattern!r}, which matches no layer; known are"
                f" {', '.join(layers)}"
            )
