"""Voice: what a probe warns of, once each."""

import warnings
from collections.abc import Mapping
from typing import Any

from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.probe.coverage import COUPLED
from sketchvar.analysis.probe.observer import Observer
from sketchvar.analysis.probe.read import OWN
from sketchvar.analysis.probe.step import Step, stamp
from sketchvar.analysis.probe.survey import is_trained
from sketchvar.analysis.probe.watch import Watch

CLEARED = (
    "gradients were cleared between backward passes of one measured step: the passes since then are"
    " its gradient, as where LBFGS or SAM evaluate the loss several times; if they were steps, call"
    " probe.step() after each"
)
MICRO = (
    "probe.step() was called though no weight has changed and no gradient was cleared since the"
    " last call: call it once per optimizer step, not after every micro-batch"
)
FORGOTTEN = "no step was ended, so that there are no rows: call probe.step() after each step"
OUTSIDE = "this Probe is not attached, and measures nothing: use it in a with block"


class Voice:
    """A warning names the line that called who has it explain, look back or say something."""

    def __init__(self) -> None:
        self.said: set[str] = set()
        self.mark: Any = None  # of a weight and its gradient at the last step

    def say(self, text: str, once: str = "") -> None:
        """Warn, unless it was said before, or something that is the same ``once``."""
        if (once or text) not in self.said:
            self.said.add(once or text)
            warnings.warn(text, stacklevel=4)

    def look_back(self, watches: Mapping[Any, Watch]) -> None:
        """Say so where no optimizer step and no clearing of gradients came since the last call."""
        trained = (watch.weight for watch in watches.values())
        weight = next((w for w in trained if is_trained(w) and w.grad is not None), None)
        before, self.mark = self.mark, None
        if weight is None or hasattr(weight, "placements"):
            return
        self.mark = (id(weight), weight._version), stamp(weight)
        if before is None or before[0] != self.mark[0]:
            return
        (then, was), (now, is_) = before[1], self.mark[1]
        if then == now and was != is_:
            self.say(MICRO)

    def explain(self, observer: Observer, found: Mapping[str, Layer] | None = None) -> None:
        """Warn of what has to be known of the last measured step."""
        step = observer.step
        if any(tally.cleared for tally in step.tallies.values()):
            self.say(CLEARED)
        if found is None:
            return
        if missing := unread(step, observer.watched):
            name, reason = next(iter(missing.items()))
            self.say(
                f"the probe read {len(found)} of {len(found) + len(missing)} layers; {name}:"
                f" {reason}; coverage() has the rest",
            )
        if own := [w.name for w, tally in step.tallies.items() if tally.note == OWN]:
            self.say(f"{own[0]}: {OWN}; coverage() has all such layers")
        if step.coupled is not None:
            self.say(COUPLED.format(norm=step.coupled))
        counts = {one.examples: one.name for one in found.values() if one.example_sq is not None}
        if 1 in counts:
            self.say(
                "one example has no minibatch variance: it is NaN, and so is the ratio; give larger"
                " batches",
            )
        if len(counts) > 1:
            seen = ", ".join(f"{count} in {name}" for count, name in counts.items())
            self.say(
                f"layers saw different numbers of examples: {seen}; say with examples= which rows"
                " are one",
            )


def unread(step: Step, watched: Mapping[str, Watch]) -> dict[str, str]:
    """The layers that a step says nothing of, and why; not those that were read in parts."""
    used = {watch.place[:2] for watch in step.tallies if step.tallies[watch].passes}
    return {
        name: reason
        for name, watch in watched.items()
        if (reason := step.reason(watch)) and (watch in step.tallies or watch.place[:2] not in used)
    }
