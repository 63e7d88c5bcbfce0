"""Coverage: every weight matrix of a model, measured or not and why."""

from collections.abc import Iterable, Mapping

import pandas as pd
from torch import nn

from sketchvar.analysis.probe.kinds import Kind, kind_of
from sketchvar.analysis.probe.watch import Watch

COLUMNS = ["parameter", "module", "share", "measured", "reason", "not_finite"]


def coverage(
    model: nn.Module, watches: Iterable[Watch], not_finite: Mapping[str, int]
) -> pd.DataFrame:
    """A line per weight matrix: parameter, kind of module, share of all parameters, measured, the
    reason if not, and the number of measured steps whose gradient was not finite.

    A parameter that several modules share has a line for each of them; its share is counted once.
    """
    watched: dict[tuple[int, str], list[Watch]] = {}
    for watch in watches:
        watched.setdefault((id(watch.module), watch.parameter), []).append(watch)
    total = sum(p.numel() for p in model.parameters())
    counted: set[int] = set()
    lines = []
    for name, module in model.named_modules():
        for key, weight in module._parameters.items():
            if weight is None or weight.ndim < 2:
                continue
            parts = watched.get((id(module), key), [])
            seen = [watch for watch in parts if watch.uses] or parts
            reasons = dict.fromkeys(reason for watch in seen if (reason := watch.reason()))
            reason = "; ".join(reasons) if parts else why_not(module, weight)
            skipped = sum(not_finite.get(watch.name, 0) for watch in parts)
            share = 0.0 if id(weight) in counted else weight.numel() / total
            counted.add(id(weight))
            lines.append(
                (
                    f"{name}.{key}".lstrip("."),
                    type(module).__name__,
                    share,
                    not reason,
                    reason,
                    skipped,
                )
            )
    return pd.DataFrame(lines, columns=COLUMNS)


def why_not(module: nn.Module, weight: nn.Parameter) -> str:
    """Why nothing watches this weight."""
    if not weight.requires_grad:
        return "frozen: it has no gradient"
    if isinstance(module, nn.Embedding):
        return "an Embedding looks rows up and forms no product"
    kind = kind_of(module)
    return "it came after the probe" if isinstance(kind, Kind) else kind
