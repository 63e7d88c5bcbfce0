"""Coverage: every weight matrix of a model, measured or not and why."""

from collections.abc import Collection, Mapping

import pandas as pd
from torch import nn
from torch.nn.parameter import UninitializedParameter

from sketchvar.analysis.probe.kinds import Kind, kind_of
from sketchvar.analysis.probe.step import Step
from sketchvar.analysis.probe.watch import Watch

COLUMNS = ["parameter", "module", "share", "measured", "reason", "not_finite", "note"]
COUPLED = (
    "{norm} in training mode makes examples depend on each other, so that the minibatch variances"
    " hold to first order before it and not well behind it; noise.redraw measures the truth"
)
LEFT_OUT = "left out: layers= does not name it"
EQUAL = "the gradients of its examples are equal, as far as their digits tell: the variance is 0"


def cover(
    model: nn.Module,
    watches: Collection[Watch],
    step: Step,
    not_finite: Mapping[str, int],
    equal: Collection[str],
    left_out: Collection[tuple[nn.Module, str]] = (),
) -> pd.DataFrame:
    """A line per weight matrix: parameter, kind of module, share of all parameters, measured in
    ``step``, the reason if not, the number of measured steps whose gradient was not finite, and a
    note on what was measured where that takes one.

    A parameter that several modules share has a line for each of them; its share is counted once.
    A parameter without a shape yet, of a lazy module, has no share.
    """
    by_weight: dict[tuple[nn.Module, str], list[Watch]] = {}
    for watch in watches:
        by_weight.setdefault((watch.module, watch.parameter), []).append(watch)
    total = sum(size_of(p) for p in model.parameters())
    counted: set[int] = set()
    lines = []
    for name, module in model.named_modules():
        for key, weight in module._parameters.items():
            if weight is None or not is_matrix(weight):
                continue
            parts = by_weight.get((module, key), [])
            seen = [watch for watch in parts if watch in step.tallies] or parts
            reasons = dict.fromkeys(filter(None, map(step.reason, seen)))
            reason = "; ".join(reasons) if weight.requires_grad and parts else why(module, weight)
            if weight.requires_grad and (module, key) in left_out:
                reason = LEFT_OUT
            notes = [] if reason else notes_on(seen, step, equal)
            share = 0.0 if id(weight) in counted else size_of(weight) / max(total, 1)
            counted.add(id(weight))
            skipped = sum(not_finite.get(watch.name, 0) for watch in parts)
            parameter, kind = f"{name}.{key}".lstrip("."), type(module).__name__
            lines.append((parameter, kind, share, not reason, reason, skipped, "; ".join(notes)))
    return pd.DataFrame(lines, columns=COLUMNS)


def notes_on(watches: Collection[Watch], step: Step, equal: Collection[str]) -> list[str]:
    """What is to be known of a weight that was measured."""
    notes = [step.tallies[watch].note for watch in watches if watch in step.tallies]
    notes += [step.unweighed[watch] for watch in watches if watch in step.unweighed]
    notes += [EQUAL for watch in watches if watch.name in equal]
    notes += [COUPLED.format(norm=step.coupled)] if step.coupled else []
    return [*dict.fromkeys(filter(None, notes))]


def why(module: nn.Module, weight: nn.Parameter) -> str:
    """Why nothing watches this weight."""
    if not weight.requires_grad:
        return "frozen: it has no gradient"
    if isinstance(module, nn.Embedding):
        return "an Embedding looks rows up and forms no product"
    kind = kind_of(module)
    return "it came after the probe" if isinstance(kind, Kind) else kind


def is_matrix(weight: nn.Parameter) -> bool:
    """Whether a parameter has two dimensions or more, or will have."""
    return isinstance(weight, UninitializedParameter) or weight.ndim > 1


def size_of(weight: nn.Parameter) -> int:
    """Entries of a parameter; 0 as long as it has no shape."""
    return 0 if isinstance(weight, UninitializedParameter) else weight.numel()
