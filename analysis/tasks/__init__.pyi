from .registry import TASKS, Options, find_task
from .task import Batch, Setting, Task, Validation, list_settings, move

__all__ = [
    "TASKS",
    "Batch",
    "Options",
    "Setting",
    "Task",
    "Validation",
    "find_task",
    "list_settings",
    "move",
]
