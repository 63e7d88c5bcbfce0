"""Uses: what is known of a product in its forward."""

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from sketchvar.analysis.probe.sight import no_autocast
from sketchvar.analysis.probe.step import Step
from sketchvar.analysis.probe.units import Unit
from sketchvar.analysis.probe.watch import Use, Watch
from sketchvar.estimators.layers.forms import Conv2dForm, Form


class Reading(NamedTuple):
    """An input as it was when a layer read it first; ``x_norm`` is ‖xᵢ‖."""

    input: weakref.ref[Tensor]  # without a callback, in which an interrupt would be lost
    first: str
    version: int
    form: Form
    x_norm: Tensor


def use_of(
    step: Step,
    watch: Watch,
    form: Form,
    x: Tensor,
    weight: Tensor,
    unit: Unit | str,
    weights: Tensor | str | None,
) -> Use | str:
    """What is known of a use in forward, its examples those of ``unit`` and of these ``weights``,
    or why it cannot be read.
    """
    if hasattr(weight, "placements"):
        return "its product runs on distributed tensors, as in tensor parallelism"
    if weight.is_complex():
        return "its weight is complex: none of the closed forms here is of complex products"
    if isinstance(unit, str):
        return unit
    count = unit.count(x)
    if isinstance(weights, str):
        return weights
    if weights is not None and len(weights) != count:
        return f"weights= gives {len(weights)} numbers, but it has {count} examples"
    p = form.size(x, weight)[1]
    task = torch._C._current_graph_task_id()
    norms = reading(step, watch.name, form, x)
    sizes = count, (p, weight.numel() // max(p, 1))
    leading = x.shape[:1] if isinstance(form, Conv2dForm) else x.shape[:-1]
    use = Use(watch, form, unit, task, *sizes, leading, weight, norms.x_norm, norms.first)
    use.weights = None if weights is None else weights.to(x.device)
    return use


@torch.no_grad()
def reading(step: Step, name: str, form: Form, x: Tensor) -> Reading:
    """One for all layers that read the same tensor, unchanged, in the same form: those that can
    share a copy.
    """
    found = step.readings.get(id(x))
    if found is None or found.input() is not x or (found.version, found.form) != (x._version, form):
        with no_autocast(x.device.type):
            found = step.readings[id(x)] = Reading(
                weakref.ref(x), name, x._version, form, form.row_norms(x)
            )
    return found
