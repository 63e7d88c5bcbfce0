"""read_settings(): fields of a task, typed as NAME=VALUE."""

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from sketchvar.analysis.tasks import TASKS, Options, list_settings
from sketchvar.estimators.catalog import check_known, suggest


def read_settings(task: str, given: Mapping[str, Any], words: Sequence[str]) -> Options:
    """The fields that differ from the task's own: those ``given``, then those of ``words``, each as
    in "width=64", by name.

    Raises ValueError for a field that the task does not have, naming those that it has, for a
    value of another type, and for a field that is given twice.
    """
    check_known("task", task, TASKS)
    found = dict(given)
    kinds = {setting.name: setting.kind for setting in list_settings(TASKS[task])}
    for name in given:
        check_field(task, name, kinds)
    for word in sorted(words):
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            raise ValueError(f"--set takes a name and a value as in width=64, got {word!r}")
        check_field(task, name, kinds)
        if name in found:
            raise ValueError(f"{name} is given twice, as {found[name]} and as {value}; leave one")
        try:
            found[name] = read_value(value, kinds[name])
        except ValueError:
            raise ValueError(
                f"{name} of {task} is {describe(kinds[name])}, got {value!r} in --set {word}"
            ) from None
    return tuple(found.items())


def check_field(task: str, name: str, kinds: Mapping[str, Any]) -> None:
    """Raise ValueError, with the nearest name and all fields, for one that the task lacks."""
    if name not in kinds:
        raise ValueError(
            f"{task} takes no {name}; {suggest(name, kinds)}it has {', '.join(sorted(kinds))}"
        )


def read_value(text: str, kind: Any) -> Any:
    """A value of a field's type: numbers, words, true and false, several with commas between them,
    none. Raises ValueError for text that is no such value.
    """
    if isinstance(kind, UnionType):
        inner = [each for each in get_args(kind) if each is not NoneType]
        return None if text.lower() == "none" else read_value(text, inner[0])
    if get_origin(kind) is tuple:
        kinds, parts = get_args(kind), text.split(",")
        each = [kinds[0]] * len(parts) if kinds[-1] is Ellipsis else list(kinds)
        return tuple(read_value(part, one) for part, one in zip(parts, each, strict=True))
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    return kind(text)


def describe(kind: Any) -> str:
    """A type in words."""
    if isinstance(kind, UnionType):
        return " or ".join(
            "none" if each is NoneType else describe(each) for each in get_args(kind)
        )
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        many = "numbers" if inner[-1] is Ellipsis else f"{len(inner)} numbers"
        return f"{many} with commas between them"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a word")
