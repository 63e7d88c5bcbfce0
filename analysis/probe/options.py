"""Options: what a Probe takes beside the model, checked before anything is measured."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from sketchvar.analysis.noise.table import choose_comparable
from sketchvar.analysis.probe.units import Examples, layout_of
from sketchvar.estimators.choice import Choice, Estimators, Rates, as_list


@dataclass(frozen=True, eq=False)
class Options:
    """See ``Probe``. Raises ValueError or TypeError for what cannot be meant."""

    by_example: bool = True
    pairs: Collection[str] = ()
    estimators: Estimators = ()
    rates: Rates = ()
    every: int = 1
    first: int = 0
    examples: Examples = 0
    scaler: Any = None
    group: Any = None
    run: str = ""
    out: Path | str | None = None
    resume: bool = False
    writer: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.by_example, bool):
            raise TypeError(
                f"by_example is True or False, got {self.by_example!r}; give options by name, as in"
                " Probe(model, estimators=['countsketch'], rates=[0.1])"
            )
        if self.every < 1:
            raise ValueError(f"every must be 1 or more, got {self.every}")
        if self.first < 0:
            raise ValueError(f"first is the number of a step, 0 or more, got {self.first}")
        if not callable(self.examples):
            layout_of(self.examples)
        if as_list(self.rates) and not self.choices:
            raise ValueError("rates= needs estimators=, as in estimators=['countsketch']")

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Options":
        """Those given by name. Raises TypeError for one that there is not, with the nearest."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                near = get_close_matches(name, names, 1)
                meant = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
                raise TypeError(f"a Probe has no option {name!r}; {meant}")
        return cls(**given)

    @cached_property
    def choices(self) -> list[Choice]:
        """Every estimator at every rate."""
        return choose_comparable(self.estimators, self.rates)

    @property
    def asked(self) -> dict[str, Any]:
        """What has to be the same where a run goes on."""
        chosen = [[choice.name, choice.rate] for choice in self.choices]
        return {"by_example": self.by_example, "choices": chosen}
