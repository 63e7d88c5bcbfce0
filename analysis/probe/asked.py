"""Asked: what a probe's ``examples`` and ``weights`` mean for what the model is called with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sketchvar.analysis.probe.units import (
    Dimension,
    Examples,
    Layout,
    Unit,
    Weights,
    call_by_name,
    layout_of,
    weights_of,
)
from sketchvar.estimators.layers.forms import Conv2dForm, Form
from sketchvar.estimators.layers.product import is_plain

PARTLY = (
    "{}= is a function of the model's arguments, but only parts of the model were called;"
    " call the model, or give a tensor"
)

Known = Callable[[torch.Size], Unit | None]


class Asked:
    """``layout`` and ``weights`` hold for the call that goes on; or they say why none is known."""

    def __init__(self, examples: Examples, weights: Weights | None) -> None:
        self.examples, self.given = examples, weights
        self.weights: Tensor | str | None = None
        if weights is not None:
            self.weights = PARTLY.format("weights") if callable(weights) else weights_of(weights)
        self.layout: Layout | str = (
            PARTLY.format("examples") if callable(examples) else layout_of(examples)
        )

    @property
    def depends(self) -> bool:
        """Whether something depends on how the model is called."""
        return callable(self.examples) or callable(self.given)

    def called(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        """The model is called with these arguments."""
        if callable(self.examples):
            self.layout = ask("examples", self.examples, layout_of, model, args, kwargs)
        if callable(self.given):
            self.weights = ask("weights", self.given, weights_of, model, args, kwargs)

    def unit_of(self, form: Form, x: Tensor, flipped: bool, known: Known | None) -> Unit | str:
        """How the rows of this input divide into examples, or why that is not known; ``known``
        tells it of what dimensions it can.
        """
        if not is_plain(x):
            kind = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
            return f"its input is a {kind} tensor: {type(x).__name__} has no rows to read"
        if isinstance(self.layout, str):
            return self.layout
        layout = self.layout.flipped() if flipped else self.layout
        if not isinstance(form, Conv2dForm):
            flat = None if flipped or known is None else known(x.shape[:-1])
            return layout.fit(x.shape[:-1]) if flat is None else flat
        unit = layout.fit(x.shape[:1])
        return Dimension(0) if isinstance(unit, Dimension) else unit


def ask(name: str, given: Any, read: Any, model: nn.Module, args: Any, kwargs: Any) -> Any:
    """What a function gives for these arguments of the model, or why it cannot be read; None where
    it gives none.
    """
    try:
        found = call_by_name(given, model, args, kwargs)
        return None if found is None and name == "weights" else read(found)
    except Exception as error:
        words = " ".join(str(error).split())
        return f"{name}= could not be read: {type(error).__name__}: {words}"
