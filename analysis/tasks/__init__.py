"""TASKS: name -> task; the command line and the tests loop over it."""

from analysis.tasks.digits_mlp import DigitsMLP
from analysis.tasks.stdlib_lm import StdlibLM
from analysis.tasks.task import Batch, Task

TASKS: dict[str, Task] = {
    "stdlib-lm": StdlibLM(),
    "stdlib-lm-large": StdlibLM(
        steps=1000,
        measure_at=(0, 10, 100, 300, 1000),
        batch_size=32,
        learning_rate=6e-4,
        precision="bfloat16",
        width=768,
        depth=12,
        heads=12,
        length=512,
    ),
    "digits-mlp": DigitsMLP(),
}

__all__ = ["TASKS", "Batch", "Task"]
