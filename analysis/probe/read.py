"""Reading a step: what all ranks gathered, as layers, and where .grad is not the product's own."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sketchvar.analysis.noise.closed import total_sq
from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.probe.step import Step, Tally, local, matrix
from sketchvar.analysis.probe.watch import Watch
from sketchvar.estimators import Moments
from sketchvar.estimators.norms import wide

NOT_FINITE = "its gradient is not finite"
ALIKE = 1e-4  # of a gradient: what two sums of the same float32 numbers may differ by
EMPTY = 6  # vectors that a rank gives of every watch
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


def read_step(step: Step, watches: Sequence[Watch], ranks: Ranks) -> dict[str, Layer]:
    """Layer name -> what was gathered on all ranks, in the scale of their averaged gradient over
    the scaler's; one device synchronisation.

    Tallies that cannot be read have their ``problem`` set where they did not have a ``reason``;
    those whose .grad is not their product's gradient have a ``note`` or a ``problem`` that says so.
    """
    scale = step.scale
    scaled = not isinstance(scale, float) or ranks.size > 1
    everywhere = ranks.gather([t for watch in watches for t in statistics(step, watch, ranks)])
    found: list[tuple[Tally, Moments, Tensor | None]] = []
    facts: list[Tensor] = []
    glances: list[tuple[Tensor, Tensor]] = []
    for i, watch in enumerate(watches):
        own = [rank[EMPTY * i : EMPTY * (i + 1)] for rank in everywhere]
        ran = [vectors for vectors in own if len(vectors[3])]
        if len(ran) < len(everywhere):
            if ran:
                step.tally(watch).problem = f"it was measured on {len(ran)} of {len(own)} ranks"
            continue
        tally = step.tallies[watch]
        x_norm, y_norm, squares_, sums, seen, added = (
            joined(side).double() if k in (0, 1, 2) else sum(side[1:], side[0])
            for k, side in enumerate(zip(*ran, strict=True))
        )
        C = sums[0]
        facts.append(sums.to(facts[0].device if facts else sums.device))  # layers may be on several
        glances.append((seen.to(facts[0].device), added.to(facts[0].device)))
        if scaled:
            y_norm, squares_, C = (
                y_norm / (scale * ranks.size),
                squares_ / (scale * ranks.size) ** 2,
                C / scale**2,
            )
        pair = pair_of(tally)
        if pair is not None and scaled:
            pair = pair[0], wide(pair[1]) / scale  # one rank: pairs are kept of no more
        moments = Moments(*tally.uses[0].size, x_norm.square(), y_norm.square(), C, pair)
        found.append((tally, moments, squares_ if tally.example_sq else None))
    numbers: list[list[float]] = []
    if facts:
        numbers = torch.cat([torch.stack(facts), compared(glances, step.whole)], 1).tolist()
    result = {}
    for (tally, moments, example_sq), line in zip(found, numbers, strict=True):
        if is_readable(tally, *line):
            result[tally.watch.name] = layer_of(tally, moments, example_sq, *line[1:3])
    return result


def compared(glances: Sequence[tuple[Tensor, Tensor]], whole: bool) -> Tensor:
    """For each layer the norm of what its own gradient and .grad differ by, at a glance, and that
    of the first; NaN for the latter where all entries were summed into one number.
    """
    seen, added = zip(*glances, strict=True)
    gaps = torch._foreach_norm(torch._foreach_sub(seen, added), dtype=torch.float64)
    sizes = torch._foreach_norm(seen, dtype=torch.float64)
    return torch.stack([torch.stack(gaps), torch.stack(sizes) * (math.nan if whole else 1.0)], 1)


def statistics(step: Step, watch: Watch, ranks: Ranks) -> list[Tensor]:
    """This rank's ‖xᵢ‖, ‖yᵢ‖, ‖g_s‖², (its share of C, rows of data, examples), and its own
    gradient and what .grad got, at a glance; empty ones if unread.
    """
    tally = step.tallies.get(watch)
    shared = None
    if step.several and (watch.tied or watch in step.mixed):  # every rank takes part in the sum
        weight = local(watch.weight)
        own = None if tally is None else tally.own
        whole = ranks.sum(weight.new_zeros(weight.shape) if own is None else own) / ranks.size
        shared = total_sq(matrix(whole)) / ranks.size
    C = None if tally is None else tally.C if shared is None else shared
    if tally is None or tally.reason() is not None or C is None:
        return [local(watch.weight).new_zeros(0, dtype=torch.float64)] * EMPTY
    x_norm = joined([use.x_norm for use in tally.uses])
    y_norm = joined([use.y_norm for use in tally.uses if use.y_norm is not None])
    if step.several and shared is None:
        C = C / ranks.replicas(tally.weight)
    rows = C.new_tensor([len(y_norm), tally.examples])
    for use in tally.uses:
        if use.data is not None:
            rows[0] -= (~use.data).sum()
    squares_ = joined(tally.example_sq) if tally.example_sq else x_norm[:0]
    seen, added = tally.seen, tally.added
    if seen is None or added is None:
        seen = added = x_norm[:0]
    return [x_norm, y_norm, squares_, torch.cat([C.view(1), rows]), seen, added]


def is_readable(
    tally: Tally, C: float, rows: float, examples: float, gap: float, size: float
) -> bool:
    """Whether ‖G‖² is a number, and the product's own; says in the tally what is wrong with it."""
    if not math.isfinite(C):  # as it is not where an entry of X or Y is not
        tally.problem = NOT_FINITE
        return False
    tally.note = TIED if tally.watch.tied else ""
    alike = max(ALIKE, 8 * torch.finfo(tally.weight.dtype).eps)
    if gap > alike * (C**0.5 if math.isnan(size) else size):
        tally.mixed = True
        if tally.own_sq is None or (tally.several and not tally.kept):
            tally.problem = ADDED
            return False
        tally.note = OWN
    return True


def layer_of(
    tally: Tally, moments: Moments, example_sq: Tensor | None, rows: float, examples: float
) -> Layer:
    """What a tally says, for users."""
    watch, first = tally.watch, {use.first for use in tally.uses}
    input_of = first.pop() if len(first) == 1 else watch.name
    dtype = tally.uses[0].dtype
    return Layer(
        watch.name, moments, int(examples), example_sq, int(rows), dtype, input_of,
        watch.sketchable, len(tally.uses),
    )  # fmt: skip


def pair_of(tally: Tally) -> tuple[Tensor, Tensor] | None:
    """X and Y, where they were asked for."""
    pairs = [use.pair for use in tally.uses if use.pair is not None]
    return (torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])) if pairs else None


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """One after another; no copy of a single one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors))
