"""Reading a step: what all ranks gathered, as layers, and where .grad is not the product's own."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.probe.in_metric import InMetric, gather_in_metric, layer_in_metric
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.probe.step import NOT_FINITE, Step, Tally
from sketchvar.analysis.probe.sums import joined
from sketchvar.analysis.probe.told import SIZE, Told, statistics
from sketchvar.analysis.probe.watch import Watch
from sketchvar.estimators import Moments
from sketchvar.estimators.norms import wide

ALIKE = 1e-4  # of a gradient: what two sums of the same float32 numbers may differ by
OWN = (
    "its .grad is not its product's gradient alone (a penalty in the loss, a hook or mask on the"
    " weight, another use of it): the product's own part is measured"
)
ADDED = (
    "its .grad is not its product's gradient alone (a penalty in the loss, a hook or mask on the"
    " weight, another use of it) and was accumulated; from the next measured step on the product's"
    " own part is measured"
)
TIED = "other modules share its weight: its own product's part of the gradient is measured"


def read_step(
    step: Step, watches: Sequence[Watch], ranks: Ranks, paired: Collection[str] = ()
) -> dict[str, Layer]:
    """Layer name -> what was gathered on all ranks, in the scale of their averaged gradient over
    the scaler's; one device synchronisation. Where there are several ranks X and Y are gathered of
    the layers that are ``paired``.

    Tallies that cannot be read have their ``problem`` set where they did not have a ``reason``;
    those whose .grad is not their product's gradient have a ``note`` or a ``problem`` that says so.
    """
    scale = step.scale
    scaled = not isinstance(scale, float) or ranks.size > 1
    everywhere = ranks.gather([t for watch in watches for t in statistics(step, watch, ranks)])
    found: list[tuple[Tally, Told]] = []
    for i, watch in enumerate(watches):
        own = [Told(*rank[SIZE * i : SIZE * (i + 1)]) for rank in everywhere]
        ran = [told for told in own if len(told.facts)]
        if len(ran) < len(everywhere):
            if ran:
                step.tally(watch).problem = f"it was measured on {len(ran)} of {len(own)} ranks"
            continue
        told = Told.of(ran)
        found.append((step.tallies[watch], told.divide(scale, ranks.size) if scaled else told))
    pairs = [pairs_of(tally, scale, ranks, paired) for tally, _ in found]
    weighed: list[InMetric | None] = [None] * len(found)
    if step.weigh is not None:
        weighed = [*gather_in_metric([tally for tally, _ in found], ranks)]
    numbers: list[list[float]] = []
    if found:
        device = found[0][1].facts.device  # layers may be on several
        facts, seen, added = (
            [getattr(told, name).to(device) for _, told in found]
            for name in ("facts", "seen", "added")
        )
        glances = compared(list(zip(seen, added, strict=True)), step.whole)
        numbers = torch.cat([torch.stack(facts), glances], 1).tolist()
    return {
        tally.watch.name: layer_of(tally, told, scale, ranks.size, pair, metric, *line[1:3])
        for (tally, told), pair, metric, line in zip(found, pairs, weighed, numbers, strict=True)
        if is_readable(tally, *line)
    }


def compared(glances: Sequence[tuple[Tensor, Tensor]], whole: bool) -> Tensor:
    """For each layer the norm of what its own gradient and .grad differ by, at a glance, and that
    of the first; NaN for the latter where all entries were summed into one number.
    """
    seen, added = zip(*glances, strict=True)
    gaps = torch._foreach_norm(torch._foreach_sub(seen, added), dtype=torch.float64)
    sizes = torch._foreach_norm(seen, dtype=torch.float64)
    known = [math.nan if whole and len(each) == 1 else 1.0 for each in seen]
    return torch.stack([torch.stack(gaps), torch.stack(sizes) * gaps[0].new_tensor(known)], 1)


def is_readable(
    tally: Tally, C: float, rows: float, examples: float, gap: float, size: float
) -> bool:
    """Whether ‖G‖² is a number, and the product's own; says in the tally what is wrong with it."""
    if not math.isfinite(C):  # as it is not where an entry of X or Y is not
        tally.problem = NOT_FINITE
        return False
    tally.note = TIED if tally.watch.tied else ""
    dtype = tally.uses[0].dtype if tally.sharded else tally.weight.dtype  # FSDP may sum in less
    alike = max(ALIKE, 8 * torch.finfo(dtype).eps)
    if gap > alike * (C**0.5 if math.isnan(size) else size):
        tally.mixed = True
        if tally.own_sq is None or (tally.several and not tally.kept):
            tally.problem = ADDED
            return False
        tally.note = OWN
    return True


def layer_of(
    tally: Tally,
    told: Told,
    scale: Tensor | float,
    ranks: int,
    pairs: Sequence[tuple[Tensor, Tensor]],
    in_metric: InMetric | None,
    rows: float,
    examples: float,
) -> Layer:
    """What a tally says, for users."""
    watch, uses = tally.watch, tally.uses
    first = {use.first for use in uses}
    pair = None
    if pairs:
        pair = joined([x for x, _ in pairs]), joined([y for _, y in pairs])
    size, C = uses[0].size, told.facts[0]
    known, inner = bool(tally.example_sq), told.inner if len(told.inner) else None
    layer = Layer(
        watch.name,
        Moments(*size, told.x_sq, told.y_sq, C, pair),
        int(examples),
        told.example_sq if known else None,
        int(rows),
        uses[0].dtype,
        first.pop() if len(first) == 1 else watch.name,
        watch.sketchable,
        len(uses),
        () if tally.several else parts_of(tally, told, pairs, scale),
        told.sums if known else None,
        inner,
        told.weights / told.weights.sum() if len(told.weights) and inner is not None else None,
    )
    if in_metric is None:
        return layer
    return replace(layer, metric=layer_in_metric(layer, tally, in_metric, scale, ranks))


def parts_of(
    tally: Tally, told: Told, pairs: Sequence[tuple[Tensor, Tensor]], scale: Tensor | float
) -> tuple[Moments, ...]:
    """The moments of each use, where there are several and all are known."""
    uses, squares = tally.uses, [use.grad_sq for use in tally.uses]
    if len(uses) < 2:
        return ()
    counts = [len(use.x_norm) for use in uses]
    sides = zip(told.x_sq.split(counts), told.y_sq.split(counts), strict=True)
    return (
        tuple(
            Moments(*uses[i].size, x_sq, y_sq, C / scale**2, pairs[i] if pairs else None)
            for i, ((x_sq, y_sq), C) in enumerate(zip(sides, squares, strict=True))
            if C is not None
        )
        if None not in squares
        else ()
    )


def pairs_of(
    tally: Tally, scale: Tensor | float, ranks: Ranks, paired: Collection[str]
) -> list[tuple[Tensor, Tensor]]:
    """X and Y of each use, where they were asked for; of several ranks those of all uses
    together.
    """
    pairs = [use.pair for use in tally.uses if use.pair is not None]
    if ranks.size > 1:
        if tally.watch.name not in paired or not pairs:
            return []
        x, y = (ranks.gather_rows(joined(side)) for side in zip(*pairs, strict=True))
        assert x is not None and y is not None
        return [(x, wide(y) / (scale * ranks.size))]
    return pairs if isinstance(scale, float) else [(x, wide(y) / scale) for x, y in pairs]
