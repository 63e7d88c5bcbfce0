"""The registry of tasks: names without loading, fields with their sentences, values that make no
sense.
"""

import subprocess
import sys
from dataclasses import replace

import pytest

from sketchvar.analysis.tasks import TASKS, find_task, list_settings


def test_names_are_known_before_anything_is_loaded():
    script = """
import sys
from sketchvar.analysis.tasks import TASKS
assert {"stdlib-lm", "glue/cola", "cifar10/vit", "digits-mlp"} <= set(TASKS) and len(TASKS) == 15
assert "glue/colla" not in TASKS
print(sorted({"torch", "sklearn", "PIL", "pandas"} & set(sys.modules)))
from sketchvar.analysis.tasks import find_task
assert find_task("digits-mlp", (("width", 8),)).width == 8 and "PIL" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_tasks_are_a_mapping_that_takes_others(monkeypatch):
    mine = replace(TASKS["digits-mlp"], width=8)
    monkeypatch.setitem(TASKS, "digits-mlp", mine)
    monkeypatch.setitem(TASKS, "mine", mine)
    assert find_task("mine") == mine == TASKS["digits-mlp"]
    monkeypatch.undo()
    assert "mine" not in TASKS and TASKS["digits-mlp"].width == 128


def test_every_field_of_every_task_is_described():
    for name in TASKS:
        for setting in list_settings(TASKS[name]):
            assert setting.about and setting.value == getattr(TASKS[name], setting.name)
            assert len(setting.about) < 120 and not setting.about.endswith(".")
    kinds = {s.name: s.kind for s in list_settings(TASKS["stdlib-lm"])}
    assert (kinds["width"], kinds["precision"]) == (int, str)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("digits-mlp", (("batch_size", 0),), "batch_size must be 1 or more, got 0"),
        ("digits-mlp", (("learning_rate", -1.0),), "learning_rate must be above 0, got -1"),
        ("glue/cola", (("precision", "half"),), "precision must be one of float32, bfloat16, got"),
    ],
)
def test_values_that_make_no_sense_are_refused(name, options, says):
    with pytest.raises(ValueError, match=says):
        find_task(name, options)


@pytest.mark.parametrize("name", ["stdlib-lm", "cifar10/vit"])
def test_heads_that_do_not_divide_the_width_are_refused(name):
    task = find_task(name, (("width", 10), ("heads", 4)))
    with pytest.raises(ValueError, match="heads must divide width, got width=10 and heads=4"):
        task.model()
