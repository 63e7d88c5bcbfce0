"""Layers that read the same X (q, k, v; gate and up) share one compressed copy of it."""

import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from sketchvar.estimators.estimator import Estimator
from sketchvar.estimators.layers.forms import Form


@dataclass(eq=False)
class Copy:
    """One compressed copy of a tensor as it was: alive while a graph that saved it is, or while it
    is the newest.
    """

    state: tuple[Any, ...]
    parts: list[TensorWeakRef]
    readers: "weakref.WeakSet[Any]" = field(default_factory=weakref.WeakSet)
    held: list[Tensor] | None = None

    def alive(self) -> list[Tensor] | None:
        tensors = [part() for part in self.parts]
        return None if any(t is None for t in tensors) else tensors


class Copies(threading.local):
    """What this thread has compressed. Entries die with the input they were made from."""

    def __init__(self) -> None:
        self.of = WeakTensorKeyDictionary()  # input -> {(estimator, form, dtype): Copy}
        self.newest: weakref.ReferenceType[Copy] | None = None


COPIES = Copies()


def shared(
    layer: object, form: Form, estimator: Estimator, x: Tensor, dtype: torch.dtype, seed: Tensor
) -> list[Tensor]:
    """The seed and payload of ``estimator`` for the X of ``x`` in ``dtype``: a sibling's if there
    is one, else new.

    A copy is shared only by the very same tensor, unchanged since (its version, storage and shape),
    under an equal estimator; and a layer that has read it already gets a new one, because it is
    then in another forward pass, where the draw has to be a new one. Only the newest copy is held
    from here, until its input dies: checkpointing takes away what a graph saves while the siblings
    are still to come.
    """
    key = (estimator, type(form), form, dtype)
    state = (x._version, x.data_ptr(), x.shape, x.stride(), x.dtype)
    copies = COPIES.of.setdefault(x, {})
    copy = copies.get(key)
    found = (
        copy.alive()
        if copy is not None and copy.state == state and layer not in copy.readers
        else None
    )
    if copy is None or found is None:
        found = [seed, *estimator.compress(form.rows(x.to(dtype)), int(seed)).tensors]
        copy = copies[key] = Copy(state, [TensorWeakRef(t) for t in found], held=found)
        newest = COPIES.newest() if COPIES.newest is not None else None
        if newest is not None:
            newest.held = None
        COPIES.newest = weakref.ref(copy)
    copy.readers.add(layer)
    return found
