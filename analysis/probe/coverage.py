"""Coverage: every parameter of a model, measured or not and why."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd
from torch import nn
from torch.nn.parameter import UninitializedParameter

from sketchvar.analysis.probe.kinds import Kind, kind_of
from sketchvar.analysis.probe.parameters.read import UNSEEN
from sketchvar.analysis.probe.patterns import LEFT_OUT
from sketchvar.analysis.probe.step import Step
from sketchvar.analysis.probe.watch import Watch

COLUMNS = ["parameter", "module", "share", "measured", "reason", "not_finite", "note"]
COUPLED = (
    "{norm} in training mode makes examples depend on each other, so that the minibatch variances"
    " hold to first order before it and not well behind it; noise.redraw measures the truth"
)
EQUAL = "the gradients of its examples are equal, as far as their digits tell: the variance is 0"

ALONE = "in noise() alone, as it forms no product that an estimator could replace"


def cover(
    model: nn.Module,
    watches: Collection[Watch],
    step: Step,
    not_finite: Mapping[str, int],
    equal: Collection[str],
    left_out: Collection[tuple[nn.Module, str]] = (),
    gradients: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """A line per parameter: its name, kind of module, share of all trained parameters, measured in
    ``step``, the reason if not, the number of measured steps whose gradient was not finite, and a
    note on what was measured where that takes one. ``gradients`` are what was read of every trained
    parameter, or why not; without them weight matrices alone have lines.

    A parameter that several modules share has a line for each of them; its share is counted once.
    A parameter without a shape yet, of a lazy module, has no share, nor has a frozen one.
    """
    by_weight: dict[tuple[nn.Module, str], list[Watch]] = {}
    for watch in watches:
        by_weight.setdefault((watch.module, watch.parameter), []).append(watch)
    total = sum(size_of(p) for p in model.parameters() if p.requires_grad)
    names = {id(p): name for name, p in model.named_parameters()}
    counted: set[int] = set()
    lines = []
    for name, module in model.named_modules():
        for key, weight in module._parameters.items():
            if weight is None or (gradients is None and not is_matrix(weight)):
                continue
            parts = by_weight.get((module, key), [])
            seen = [watch for watch in parts if watch in step.tallies] or parts
            reasons = dict.fromkeys(filter(None, map(step.reason, seen)))
            reason = "; ".join(reasons) if weight.requires_grad and parts else why(module, weight)
            if weight.requires_grad and (module, key) in left_out:
                reason = LEFT_OUT
            notes = [] if reason else notes_on(seen, step, equal)
            told = (gradients or {}).get(names[id(weight)])
            if reason and not parts and weight.requires_grad and told is not None:
                if isinstance(told, str):
                    reason = reason if told == UNSEEN and is_matrix(weight) else told
                else:
                    notes = [note_on(weight, reason, step), *coupled(step)]
                    reason = ""
            elif gradients is not None and weight.requires_grad and not is_matrix(weight):
                reason = UNSEEN
            share = 0.0 if id(weight) in counted else size_of(weight) / max(total, 1)
            counted.add(id(weight))
            parameter, kind = f"{name}.{key}".lstrip("."), type(module).__name__
            skipped = sum(not_finite.get(watch.name, 0) for watch in parts)
            skipped = skipped or not_finite.get(parameter, 0)
            share = share if weight.requires_grad else 0.0
            note = "; ".join(filter(None, notes))
            lines.append((parameter, kind, share, not reason, reason, skipped, note))
    return pd.DataFrame(lines, columns=COLUMNS)


def note_on(weight: nn.Parameter, reason: str, step: Step) -> str:
    """What is to be known of a parameter that was measured, but not as a product's weight."""
    account = (step.read or {}).get(id(weight))
    alone = f"{ALONE}: {reason}" if is_matrix(weight) else ""
    return "; ".join(filter(None, [alone, account.note if account is not None else ""]))


def coupled(step: Step) -> list[str]:
    """A note where examples depend on each other."""
    return [COUPLED.format(norm=step.coupled)] if step.coupled else []


def notes_on(watches: Collection[Watch], step: Step, equal: Collection[str]) -> list[str]:
    """What is to be known of a weight that was measured."""
    notes = [step.tallies[watch].note for watch in watches if watch in step.tallies]
    notes += [step.unweighed[watch] for watch in watches if watch in step.unweighed]
    notes += [EQUAL for watch in watches if watch.name in equal]
    notes += coupled(step)
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
