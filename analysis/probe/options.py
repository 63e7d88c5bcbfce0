"""Options: what a Probe takes beside the model, checked before anything is measured."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sketchvar.analysis.noise.table import choose_comparable
from sketchvar.analysis.probe.log import Log, Send, read_log
from sketchvar.analysis.probe.schedule import Every, Periods, read_periods
from sketchvar.analysis.probe.table import claim
from sketchvar.analysis.probe.units import Examples, Weights, layout_of, weights_of
from sketchvar.analysis.probe.weighing import METRICS, Weigh, as_weigh
from sketchvar.estimators.choice import Choice, Estimators, Rates, as_list

TRAINERS = ("scaler", "group", "first")  # what a trainer knows


@dataclass(frozen=True, eq=False)
class Options:
    """See ``Probe``. Raises ValueError or TypeError for what cannot be meant."""

    by_example: bool = True
    pairs: Collection[str] = ()
    estimators: Estimators = ()
    rates: Rates = ()
    every: Every = 1
    first: int = 0
    examples: Examples = 0
    scaler: Any = None
    group: Any = None
    run: str = ""
    out: Path | str | None = None
    resume: bool = False
    writer: Any = None
    population: int | None = None
    exact_errors: bool = False
    weights: Weights | None = None
    metric: Any = None
    overhead: float | None = None
    layers: str | Collection[str] = "*"
    log: Send | None = None
    log_layers: str | Collection[str] = ()
    parameters: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.by_example, bool):
            raise TypeError(
                f"by_example is True or False, got {self.by_example!r}; give options by name, as in"
                " Probe(model, estimators=['countsketch'], rates=[0.1])"
            )
        _ = self.periods  # refuses what is none
        if self.overhead is not None and not 0 < self.overhead <= 1:
            raise ValueError(
                f"overhead is a fraction of the training time, 0 to 1, got {self.overhead}; 0.01"
                " makes it 1 % slower"
            )
        if self.overhead is not None and self.every != 1:
            raise ValueError("overhead= chooses every itself; give one of the two")
        if not as_list(self.layers):
            raise ValueError("layers= is empty: there would be nothing to measure; leave it out")
        self.make_log()
        if self.first < 0:
            raise ValueError(f"first is the number of a step, 0 or more, got {self.first}")
        if self.population is not None and self.population < 1:
            raise ValueError(
                f"population is the number of examples that there are, got {self.population}; leave"
                " it out where there is no end of them"
            )
        if self.weights is not None and not self.by_example:
            raise ValueError("weights= are of examples, and by_example=False measures rows alone")
        if self.weights is not None and not callable(self.weights):
            weights = weights_of(self.weights)
            if not (weights >= 0).all() or not weights.sum() > 0 or len(weights) < 2:
                raise ValueError(
                    "weights= has to be numbers >= 0 of two examples or more, not all 0, got"
                    f" {self.weights}"
                )
        if not callable(self.examples):
            layout_of(self.examples)
        _ = self.weigh  # refuses what is none
        if as_list(self.rates) and not self.choices:
            raise ValueError("rates= needs estimators=, as in estimators=['countsketch']")

    @cached_property
    def periods(self) -> Periods:
        """What ``every`` means."""
        return read_periods(self.every)

    def make_log(self) -> Log | None:
        """What ``log`` and ``log_layers`` mean."""
        return read_log(self.log, self.log_layers)

    @cached_property
    def weigh(self) -> Weigh | None:
        """What ``metric`` means."""
        return as_weigh(self.metric)

    @cached_property
    def choices(self) -> list[Choice]:
        """Every estimator at every rate."""
        return choose_comparable(self.estimators, self.rates)

    @property
    def asked(self) -> dict[str, Any]:
        """What has to be the same where a run goes on."""
        chosen = [[choice.name, choice.rate] for choice in self.choices]
        return {"by_example": self.by_example, "choices": chosen}

    @property
    def measured(self) -> dict[str, Any]:
        """What else has to be the same on all ranks, in JSON."""
        return {
            "every": str(self.every),
            "overhead": self.overhead,
            "pairs": sorted(self.pairs),
            "exact_errors": self.exact_errors,
            "weights": self.weights is not None,
            "metric": self.metric is not None,
        }


def check(given: dict[str, Any]) -> None:
    """Check a callback's options before training begins. Raises what ``Options`` raises, TypeError
    for one that there is not, with the nearest, and ValueError for a folder in use.
    """
    names = [f.name for f in fields(Options) if f.name not in TRAINERS]
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, 1)
            meant = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
            raise TypeError(f"a ProbeCallback has no option {name!r}; {meant}")
    metric = None if given.get("metric") in METRICS else given.get("metric")
    options = Options(**{**given, "metric": metric})
    if options.out is not None and not options.resume and options.choices:
        claim(Path(options.out), False, 0, options.asked)


def continued(
    given: dict[str, Any], before: Any, first: int, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """The options of a callback's next Probe, which goes on in the folder of the one before; a
    metric by its name is that of the trainer's ``optimizer``.
    """
    resume = given.get("resume", False) or (before is not None and first > 0)
    metric = given.get("metric")
    if metric in METRICS:
        metric = METRICS[metric](optimizer)
    return {**given, "first": first, "resume": resume, "metric": metric}
