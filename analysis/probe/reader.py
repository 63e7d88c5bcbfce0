"""Reader: reads the steps that an observer has seen, those of all ranks together."""

from collections import Counter
from collections.abc import Collection, Mapping

import pandas as pd

from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.noise.parameters import Gradient
from sketchvar.analysis.noise.table import Batch, read_batch
from sketchvar.analysis.probe.across import share_forms
from sketchvar.analysis.probe.agreement import Agreement
from sketchvar.analysis.probe.coverage import cover
from sketchvar.analysis.probe.observer import Observer
from sketchvar.analysis.probe.parameters.read import read_parameters
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.probe.read import read_step
from sketchvar.analysis.probe.step import NOT_FINITE
from sketchvar.estimators import Choice
from sketchvar.estimators.choice import as_list


class Reader:
    """``choices`` are compared in each step; ``layers`` are the patterns of what is measured. All
    ranks call it alike.
    """

    def __init__(
        self,
        observer: Observer,
        ranks: Ranks,
        choices: list[Choice],
        layers: str | Collection[str],
    ) -> None:
        self.observer, self.ranks, self.choices = observer, ranks, choices
        self.layers = as_list(layers)
        self.agreement = Agreement(Ranks())
        self.gradients: dict[str, Gradient | str] = {}  # of every parameter, in the last read step
        self.not_finite: Counter[str] = Counter()

    @property
    def known(self) -> list[Gradient]:
        """Every parameter that the last step that was read told of."""
        return [each for each in self.gradients.values() if isinstance(each, Gradient)]

    def begin(self) -> None:
        """Ranks agree from here on."""
        self.agreement = Agreement(self.ranks)

    def agree(self, **about: object) -> None:
        """Go on where all ranks do. Raises Disagreement."""
        if self.ranks.size > 1:
            observer = self.observer
            about["layers"] = [[name, *w.weight.shape] for name, w in observer.watched.items()]
            if observer.ledger is not None:
                named = observer.model.named_parameters()
                about["parameters"] = [[name, *p.shape] for name, p in named if p.requires_grad]
            self.agreement.seek(about)

    def read(self) -> dict[str, Layer]:
        """Layer name -> what the last measured step told."""
        observer = self.observer
        found = self.read_layers()
        observer.mixed |= {w for w, tally in observer.step.tallies.items() if tally.mixed}
        observer.whole = observer.whole and not found
        self.read_others(found)
        return found

    def read_layers(self) -> dict[str, Layer]:
        """What products told."""
        observer = self.observer
        watches = list(observer.watched.values())
        return read_step(observer.step, watches, self.ranks, observer.pairs)

    def read_others(self, found: Mapping[str, Layer]) -> None:
        """Read every parameter of the step, of whose products these layers were found."""
        o = self.observer
        if o.ledger is not None:
            self.gradients = read_parameters(
                o.model, o.step, found, o.places, o.asked.weights, self.layers, self.ranks
            )

    def compare(self, found: Mapping[str, Layer]) -> Batch | None:
        """Set every estimator beside the minibatch."""
        layers = list(found.values())
        if self.ranks.size > 1:
            share_forms(layers, self.observer.step, self.choices, self.ranks)
        return read_batch(layers, self.choices)

    def count_not_finite(self) -> None:
        """Count what the last step could not be read of because a gradient was not finite."""
        tallies = self.observer.step.tallies
        self.not_finite.update(
            w.name for w, tally in tallies.items() if tally.problem == NOT_FINITE
        )
        if self.observer.ledger is not None:
            found = self.gradients.items()
            self.not_finite.update(name for name, why in found if why == NOT_FINITE)

    def cover(self, equal: Collection[str]) -> pd.DataFrame:
        """The coverage of the last measured step; ``equal`` are layers whose examples all have one
        gradient.
        """
        o = self.observer
        known, unread = o.ledger is not None, o.step.read is None
        if known and unread and (o.step.tallies or o.step.accounts) and self.ranks.size == 1:
            self.read_others(self.read_layers())  # of several ranks all have to read alike
        gradients, watches = self.gradients if known else None, list(o.places.values())
        return cover(o.model, watches, o.step, self.not_finite, equal, o.survey.left_out, gradients)
