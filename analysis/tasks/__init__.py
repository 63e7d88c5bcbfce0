"""TASKS: name -> task; the command line and the tests loop over it."""

from dataclasses import fields, replace

from sketchvar.analysis.tasks.cifar10 import CifarConv, CifarViT
from sketchvar.analysis.tasks.digits_mlp import DigitsMLP
from sketchvar.analysis.tasks.glue import GLUE
from sketchvar.analysis.tasks.stdlib_lm import StdlibLM
from sketchvar.analysis.tasks.task import Batch, Task, Validation, moved
from sketchvar.estimators.catalog import check_known

LARGE = StdlibLM(
    steps=1000,
    measure_at=(0, 10, 100, 300, 1000),
    batch_size=32,
    learning_rate=6e-4,
    precision="bfloat16",
    width=768,
    depth=12,
    heads=12,
    length=512,
)
TASKS: dict[str, Task] = {
    "stdlib-lm": StdlibLM(),
    "stdlib-lm-large": LARGE,
    # GPT-2 small: 124 million parameters
    "stdlib-lm-gpt2": replace(LARGE, steps=300, measure_at=(0, 10, 30, 100, 300), vocabulary=50257),
    "digits-mlp": DigitsMLP(),
    **GLUE,
    "cifar10/vit": CifarViT(),
    "cifar10/conv": CifarConv(),
}

Options = tuple[
    tuple[str, str | int | float], ...
]  # fields of a task that differ from its defaults


def named(task: str, options: Options = ()) -> Task:
    """The task of this name with these fields changed.

    Raises ValueError for a name that is not known and for a field that the task does not have.
    """
    check_known("task", task, TASKS)
    known = {field.name for field in fields(TASKS[task])}
    for name, _ in options:
        if name not in known:
            raise ValueError(
                f"{task} takes no {name}; it has"
                f" {', '.join(sorted(known - {'steps', 'measure_at'}))}"
            )
    return replace(TASKS[task], **dict(options))  # type: ignore[arg-type]


__all__ = ["TASKS", "Batch", "Options", "Task", "Validation", "moved", "named"]
