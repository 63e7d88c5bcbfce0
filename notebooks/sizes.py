"""How large the notebooks are: for a reader, or small where ``SKETCHVAR_SMALL`` is set."""

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from sketchvar.analysis.tasks.stdlib_lm import StdlibLM

SMALL = "SKETCHVAR_SMALL" in os.environ
TASK = replace(StdlibLM(), width=32, depth=1, heads=2, batch_size=8) if SMALL else StdlibLM()


def pick(reader: dict[str, Any], small: dict[str, Any]) -> SimpleNamespace:
    """The sizes of one notebook."""
    return SimpleNamespace(**(small if SMALL else reader))


meet = pick(dict(draws=400), dict(draws=20))
play = pick(dict(draws=60), dict(draws=4))
frontier = pick(
    dict(task=TASK, step=100, layer="blocks.2.up", draws=32, kinds=4),
    dict(task=TASK, step=3, layer="blocks.0.up", draws=4, kinds=1),
)
layers = pick(dict(task=TASK, steps=30), dict(task=TASK, steps=5))
model = pick(dict(steps=20, draws=60, more=4), dict(steps=3, draws=4, more=2))
cost = pick(
    dict(task=replace(TASK, width=48, depth=3, length=32, batch_size=16, heads=2)),
    dict(task=replace(TASK, width=16, depth=1, length=8, batch_size=8, heads=2)),
)
cost.steps, cost.draws, cost.forks, cost.ahead = (10, 4, 2, 4) if SMALL else (100, 8, 8, 16)
plan = pick(dict(task=TASK, steps=40, every=8), dict(task=TASK, steps=4, every=1))
