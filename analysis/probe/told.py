"""Told: what one watch has told of a step, on one rank or on all of them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis import noise
from sketchvar.analysis.noise.closed import total_sq
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.probe.step import Step, Tally, local, matrix
from sketchvar.analysis.probe.watch import Watch
from sketchvar.estimators.layers.forms import Conv1DForm


class Told(NamedTuple):
    """What one watch told on one rank, or on all of them: ``facts`` are (C, rows of data,
    examples), ``sums`` by example one after another, ``seen`` and ``added`` its own gradient and
    what .grad got, at a glance. Empty if unread.
    """

    x_sq: Tensor
    y_sq: Tensor
    example_sq: Tensor
    sums: Tensor
    inner: Tensor
    facts: Tensor
    seen: Tensor
    added: Tensor

    @classmethod
    def of(cls, ranks: "Sequence[Told]") -> "Told":
        """What all ranks told."""
        sums = joined([told.sums.view(3, -1) for told in ranks], 1)
        facts, seen, added = (sum(side[1:], side[0]) for side in list(zip(*ranks, strict=True))[5:])
        x_sq, y_sq, example_sq, _, inner = (
            joined(side) for side in list(zip(*ranks, strict=True))[:5]
        )
        return cls(x_sq, y_sq, example_sq, sums, inner, facts, seen, added)

    def divide(self, scale: Tensor | float, ranks: int) -> "Told":
        """The same where the gradient is divided by the scaler's scale, and is the mean over
        ranks.
        """
        whole, part = scale**2, (scale * ranks) ** 2
        x, y, d = self.sums
        return self._replace(
            y_sq=self.y_sq / part,
            example_sq=self.example_sq / part,
            sums=torch.stack([x, y / part, d / part]),
            inner=self.inner / whole,
            facts=torch.cat([self.facts[:1] / whole, self.facts[1:]]),
        )


SIZE = len(Told._fields)


def statistics(step: Step, watch: Watch, ranks: Ranks) -> Told:
    """What this rank tells of a watch; of C its share."""
    tally = step.tallies.get(watch)
    shared = None
    if step.several and (watch.tied or watch in step.mixed):  # every rank takes part in the sum
        weight = local(watch.weight)
        own = None if tally is None else tally.own
        whole = ranks.sum(weight.new_zeros(weight.shape) if own is None else own) / ranks.size
        shared = total_sq(matrix(whole)) / ranks.size
    C = None if tally is None else tally.C if shared is None else shared
    if tally is None or tally.reason() is not None or C is None:
        return Told(*[local(watch.weight).new_zeros(0, dtype=torch.float64)] * SIZE)
    x_sq = joined([use.x_norm for use in tally.uses]).double().square()
    y_sq = joined([use.y_norm for use in tally.uses if use.y_norm is not None]).double().square()
    if step.several and shared is None:
        C = C / ranks.replicas(tally.weight)
    rows = C.new_tensor([len(y_sq), tally.examples])
    for use in tally.uses:
        if use.data is not None:
            rows[0] -= (~use.data).sum()
    none = x_sq[:0]
    squares, sums, inner = none, none, none
    if tally.example_sq:
        squares = joined(tally.example_sq).double()
        sums = sum_by_example(tally, torch.stack([x_sq, y_sq, x_sq * y_sq], -1)).flatten()
        if step.exact:
            inner = sum_by_example(tally, inner_products(tally)[:, None])[0]
    seen, added = tally.seen, tally.added
    if seen is None or added is None:
        seen = added = none
    facts = torch.cat([C.view(1), rows])
    return Told(x_sq, y_sq, squares, sums, inner, facts, seen, added)


def sum_by_example(tally: Tally, rows: Float[Tensor, "n d"]) -> Float[Tensor, "d S"]:
    """Numbers of rows, of all uses one after another, summed over those of each example; the uses
    of one backward pass have the same examples.
    """
    passes: dict[int, Tensor] = {}
    for use, part in zip(
        tally.uses, rows.split([len(use.x_norm) for use in tally.uses]), strict=True
    ):
        passes[use.task] = use.sum_by_example(part) + passes.get(use.task, 0)
    return joined(list(passes.values()), 1)


def inner_products(tally: Tally) -> Float[Tensor, " n"]:
    """⟨xᵢyᵢᵀ, G⟩ of each row."""
    g = matrix(tally.gradient() if tally.own is None else tally.own)
    each = []
    for use in tally.uses:
        assert use.pair is not None
        of = g if isinstance(use.form, Conv1DForm) else g.T
        each.append(noise.inner_products(*use.pair, of.to(use.pair[0].dtype)))
    return joined(each)


def joined(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """One after another; no copy of a single one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors), dim)
