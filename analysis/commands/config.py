"""read_config(): the options of a command from a TOML file, as the words that would be typed."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any


def read_config(path: Path, asked: type) -> list[str]:
    """Read a file of a command's options: each by its name, with or without its dashes; a list for
    several values, true for one that takes none; the fields of a task as a table ``[set]``.

    Raises ValueError for a file that is missing or no TOML, for a key that is no option, with the
    nearest, and for a value that cannot be typed.
    """
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read --config {path} ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {path} is not TOML: {error}") from None
    known = {
        flag.lstrip("-"): flag
        for each in fields(asked)
        for flag in each.metadata["option"].flags[:1]
        if each.name != "config"
    }
    words: list[str] = []
    for key, value in found.items():
        name = key.replace("_", "-")
        if name not in known:
            from sketchvar.estimators.catalog import suggest  # which loads torch

            raise ValueError(
                f"--config {path} has an unknown key {key!r}; {suggest(name, known)}known are"
                f" {', '.join(known)}"
            )
        words += spell(known[name], key, value)
    return words


def spell(flag: str, key: str, value: Any) -> list[str]:
    """Spell one option. Raises ValueError for what no option takes, as a date."""
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, Mapping):
        value = [f"{name}={spell_value(key, each)}" for name, each in value.items()]
    several = value if isinstance(value, list) else [value]
    return [flag, *(spell_value(key, each) for each in several)]


def spell_value(key: str, value: Any) -> str:
    """Spell a value; several of a field of a task with commas between them."""
    if isinstance(value, list):
        return ",".join(spell_value(key, each) for each in value)
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ValueError(f"--config: {key} has a {type(value).__name__}, which no option takes")
    return str(value)
