"""Planned: a plan, an estimator for each layer, where other choices are one for all layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sketchvar.estimators.choice import Choice, Flags
from sketchvar.estimators.estimator import Estimator
from sketchvar.estimators.spelling import parse

Layers = tuple[tuple[str, str], ...]  # names of layers and spellings, "exact" among them


def check_names(plans: Sequence[tuple[str, Layers]]) -> None:
    """Raise ValueError where two plans have one name."""
    if len(names := [name for name, _ in plans]) > len(set(names)):
        raise ValueError(f"plans need different names, got {' '.join(names)}; rename a file")


@dataclass(frozen=True)
class Planned(Choice):
    """A plan as one choice: what it is ``told`` is an estimator for each layer, by name, and the
    other layers are exact.
    """

    layers: Layers = ()

    @classmethod
    def read(cls, name: str, layers: Layers) -> "Planned":
        """Call these ``layers`` and spellings "plan:" and the ``name``. Raises ValueError for a
        plan of no layer, and for a spelling that cannot be read.
        """
        if not layers:
            raise ValueError(f"the plan {name} names no layer")
        return cls(f"plan:{name}", 1.0, parse(layers[0][1]), layers)

    @property
    def flags(self) -> Flags:
        """What tables say of it: of any of its estimators."""
        each = [Choice.of(parse(text)).flags for _, text in self.layers]
        return Flags(any(f.oracle for f in each), any(f.biased for f in each), takes_rate=False)

    def told(self, y_sq: Any = None) -> Mapping[str, Estimator]:  # type: ignore[override]
        """Its estimators, by layer."""
        return {layer: parse(text) for layer, text in self.layers if text != "exact"}
