"""Told: what one watch has told of a step, on one rank or on all of them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sketchvar.analysis.noise.closed import total_sq
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.probe.step import Step, local, matrix
from sketchvar.analysis.probe.sums import inner_products, joined, sum_by_example
from sketchvar.analysis.probe.watch import Watch


class Told(NamedTuple):
    """What one watch told on one rank, or on all of them: ``facts`` are (C, rows of data,
    examples), ``sums`` by example one after another, ``weights`` in proportion to its examples'
    parts, ``seen`` and ``added`` its own gradient and what .grad got, at a glance. Empty if unread.
    """

    x_sq: Tensor
    y_sq: Tensor
    example_sq: Tensor
    sums: Tensor
    inner: Tensor
    weights: Tensor
    facts: Tensor
    seen: Tensor
    added: Tensor

    @classmethod
    def of(cls, ranks: "Sequence[Told]") -> "Told":
        """What all ranks told."""
        sums = joined([told.sums.view(3, -1) for told in ranks], 1)
        sides = list(zip(*ranks, strict=True))
        x_sq, y_sq, example_sq, _, inner, weights = (joined(side) for side in sides[:6])
        facts, seen, added = (sum(side[1:], side[0]) for side in sides[6:])
        return cls(x_sq, y_sq, example_sq, sums, inner, weights, facts, seen, added)

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
            inner=self.inner / (whole * ranks),
            facts=torch.cat([self.facts[:1] / whole, self.facts[1:]]),
        )


SIZE = len(Told._fields)


def statistics(step: Step, watch: Watch, ranks: Ranks) -> Told:
    """What this rank tells of a watch; of C its share."""
    tally = step.tallies.get(watch)
    shared = None
    if step.several and step.keeps(watch):  # every rank takes part in the sum
        weight, part = watch.weight, watch.part
        shape = weight.shape if part is None else (part.stop - part.start, *weight.shape[1:])
        own = None if tally is None else tally.own
        whole = ranks.sum(local(weight).new_zeros(shape) if own is None else own) / ranks.size
        shared = total_sq(matrix(whole)) / ranks.size
        if tally is not None:
            tally.mean = whole
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
    squares, sums, inner, weights = none, none, none, none
    if tally.example_sq:
        squares = joined(tally.example_sq).double()
        sums = sum_by_example(tally.uses, torch.stack([x_sq, y_sq, x_sq * y_sq], -1)).flatten()
        if tally.inner is not None:
            inner = tally.inner
        elif step.exact and tally.mean is not None:
            inner = tally.inner = inner_products(tally.uses, tally.mean)
        if tally.uses[0].weights is not None:
            weights = tally.uses[0].weights
    seen, added = tally.seen, tally.added
    if seen is None or added is None:
        seen = added = none
    elif tally.sharded:  # by rows, so that the sum over ranks has one mean of theirs per replica
        added = added * (ranks.size / ranks.replicas(tally.weight))
    facts = torch.cat([C.view(1), rows])
    return Told(x_sq, y_sq, squares, sums, inner, weights, facts, seen, added)
