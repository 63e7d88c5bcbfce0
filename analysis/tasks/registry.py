"""TASKS: name -> task; it knows all names before a task, its data or torch is loaded."""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sketchvar.analysis.tasks.task import Task

Options = tuple[  # fields of a task that differ from its defaults
    tuple[str, str | int | float], ...
]


class Recipe(NamedTuple):
    """How a task is made: a class or function of a module beside this one, and its arguments."""

    module: str
    make: str
    arguments: Mapping[str, Any] = {}


class Tasks(MutableMapping[str, "Task"]):
    """Name -> task, each made when it is first asked for."""

    def __init__(self, recipes: Mapping[str, Recipe]) -> None:
        self._entries: dict[str, Recipe | Task] = dict(recipes)

    def __getitem__(self, name: str) -> "Task":
        entry = self._entries[name]
        if isinstance(entry, Recipe):
            module = import_module(f"{__package__}.{entry.module}")
            entry = self._entries[name] = getattr(module, entry.make)(**entry.arguments)
        return entry

    def __setitem__(self, name: str, task: "Task") -> None:
        self._entries[name] = task

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries  # a Mapping's own way would make the task

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


LARGE = {
    "steps": 1000,
    "measure_at": (0, 10, 100, 300, 1000),
    "batch_size": 32,
    "learning_rate": 6e-4,
    "precision": "bfloat16",
    "width": 768,
    "depth": 12,
    "heads": 12,
    "length": 512,
}
# GPT-2 small: 124 million parameters
GPT2 = LARGE | {"steps": 300, "measure_at": (0, 10, 30, 100, 300), "vocabulary": 50257}
F1, CORRELATION = "mean of F1 and accuracy", "mean of Pearson and Spearman"
# training examples as published, batch size and learning rate as in the paper, GLUE's own metric
GLUE: dict[str, dict[str, Any]] = {
    "cola": {"size": 8551, "batch_size": 16, "learning_rate": 1e-5, "metric": "Matthews"},
    "mrpc": {"size": 3668, "batch_size": 16, "learning_rate": 1e-5, "metric": F1},
    "rte": {"size": 2490, "batch_size": 16, "learning_rate": 2e-5},
    "sst-2": {"size": 67349, "batch_size": 32, "learning_rate": 2e-5},
    "sts-b": {"size": 5749, "batch_size": 16, "learning_rate": 1e-5, "metric": CORRELATION},
    "qnli": {"size": 104743, "batch_size": 16, "learning_rate": 1e-5},
    "qqp": {"size": 363846, "batch_size": 32, "learning_rate": 1e-5, "metric": F1},
    "mnli": {"size": 392702, "batch_size": 16, "learning_rate": 1e-5},
    "wnli": {"size": 635, "batch_size": 32, "learning_rate": 1e-5},
}
TASKS = Tasks(
    {
        "stdlib-lm": Recipe("stdlib_lm", "StdlibLM"),
        "stdlib-lm-large": Recipe("stdlib_lm", "StdlibLM", LARGE),
        "stdlib-lm-gpt2": Recipe("stdlib_lm", "StdlibLM", GPT2),
        "digits-mlp": Recipe("digits_mlp", "DigitsMLP"),
        **{
            f"glue/{name}": Recipe("glue", "make_glue", {"glue": name, **paper})
            for name, paper in GLUE.items()
        },
        "cifar10/vit": Recipe("cifar10", "CifarViT"),
        "cifar10/conv": Recipe("cifar10", "CifarConv"),
    }
)


def find_task(name: str, options: Options = ()) -> "Task":
    """Find the task of this name and change these fields of it.

    Raises ValueError for a name that is not known, a field that the task does not have and a value
    that makes no sense.
    """
    from sketchvar.estimators.catalog import check_known

    check_known("task", name, TASKS)
    known = {field.name for field in fields(TASKS[name])}
    for field, _ in options:
        if field not in known:
            has = ", ".join(sorted(known - {"steps", "measure_at"}))
            raise ValueError(f"{name} takes no {field}; it has {has}")
    return replace(TASKS[name], **dict(options))  # type: ignore[arg-type]
