"""Account: the gradient of one parameter by example, gathered over the passes of a step."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis import noise
from sketchvar.analysis.noise.closed import total_sq
from sketchvar.analysis.probe.parameters.lookup import Lookup, cross, lookup_inner, lookup_sq
from sketchvar.analysis.probe.parameters.routed import Routed, routed_sq
from sketchvar.analysis.probe.product import Product
from sketchvar.analysis.probe.product import example_sq as squares
from sketchvar.analysis.probe.step import local, matrix, stamp
from sketchvar.analysis.probe.sums import joined
from sketchvar.estimators.norms import wide

MIXED = (
    "it is used in several ways in one pass, of which the squared norm of the sum has no form here"
)
ALIKE = 1e-3  # of a gradient: what two sums of the same float32 numbers may differ by
OUTSIDE = (
    "its .grad is not what its module's forward gave (a penalty in the loss, a hook on the"
    " parameter, another use of it)"
)


@dataclass(eq=False)
class Parts:
    """What one backward pass tells of one parameter: its gradient by example is the sum of all."""

    dense: Float[Tensor, "S size"] | None = None
    products: list[Product] = field(default_factory=list)
    lookups: list[Lookup] = field(default_factory=list)
    routed: list[Routed] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.dense is not None or bool(self.products or self.lookups or self.routed)

    def add(self, g: Float[Tensor, "S *shape"]) -> None:
        """Add gradients by example, formed."""
        flat = wide(g).reshape(len(g), -1)
        self.dense = flat if self.dense is None else self.dense + flat

    def add_at(self, g: Float[Tensor, "S some"], start: int, size: int) -> None:
        """Add gradients of entries from ``start`` on, of a parameter of this ``size``."""
        if g.shape[1] < size:
            whole = g.new_zeros(len(g), size)
            whole[:, start : start + g.shape[1]] = g
            g = whole
        self.add(g)

    @property
    def examples(self) -> int:
        """Their number; 0 of no parts."""
        counts = [] if self.dense is None else [len(self.dense)]
        counts += [each.unit.count(each.x) for each in self.products]
        counts += [len(each.ids) for each in self.lookups]
        counts += [each.examples for each in self.routed]
        return counts[0] if len(set(counts)) == 1 else -len(counts)

    def squares(self) -> Float[Tensor, " S"] | None:
        """‖g_s‖² of each example; None where it has no form here."""
        if self.dense is not None:
            alone = not (self.products or self.lookups or self.routed)
            return self.dense.double().square().sum(1) if alone else None
        if self.routed:
            return None if self.products or self.lookups else routed_sq(self.routed)
        found = [squares(self.products)] if self.products else []
        found += [lookup_sq(self.lookups)] if self.lookups else []
        found += [2 * cross(a, b) for a in self.products for b in self.lookups]
        return torch.stack(found).sum(0)

    def inner(self, G: Tensor) -> Float[Tensor, " S"] | None:
        """⟨g_s, G⟩ of each example, where it takes no product."""
        if self.dense is not None:
            return (self.dense @ G.flatten().to(self.dense.dtype)).double()
        return None if self.products or self.routed else lookup_inner(self.lookups, G)

    def products_inner(self, G: Tensor) -> Float[Tensor, " S"] | None:
        """The same, by one product more."""
        if self.dense is not None or self.routed:
            return None
        found = [lookup_inner(self.lookups, G)] if self.lookups else []
        for each in self.products:
            x, y = each.of(slice(0, each.unit.count(each.x)))
            g = each.form.matrix(G).to(x.dtype)
            found.append(noise.inner_products(x, y, g).sum(1))
        return torch.stack(found).sum(0)


@dataclass(eq=False)
class Account:
    """A parameter under observation, in one step: as ``Tally`` is of a product's weight."""

    name: str
    weight: Any
    exact: bool = False
    task: int = -1  # autograd's number of the pass that is open
    parts: Parts = field(default_factory=Parts)
    passes: int = 0
    example_sq: list[Tensor] = field(default_factory=list)
    inner: Tensor | None = None
    own: Tensor | None = None  # Σ g_s, where the g_s are formed
    before: Tensor | None = None  # what .grad held when the first pass came
    stamp: tuple[int, int] | None = None
    C: Tensor | None = None
    own_sq: Tensor | None = None
    gap: Tensor | None = None  # how far own is from what was added to .grad, as a part of it
    problem: str | None = None
    note: str = ""

    def open(self, task: int) -> Parts:
        """The parts of this pass, before autograd adds to .grad."""
        if self.task != task:
            self.task, self.parts = task, Parts()
            now = stamp(self.weight)
            if self.passes and now != self.stamp:  # cleared between passes: LBFGS, SAM
                self.passes, self.example_sq, self.own = 0, [], None
            if not self.passes:
                self.before = None if self.weight.grad is None else self.weight.grad.clone()
            self.stamp = now
        return self.parts

    def close(self) -> None:
        """The pass has ended."""
        parts, self.parts, self.task = self.parts, Parts(), -1
        then, self.stamp = self.stamp, stamp(self.weight)
        if then == self.stamp or self.problem is not None or not parts:
            return  # a pass for the gradient of something else
        self.passes += 1
        if parts.examples < 1:
            self.problem = "its uses in one backward pass have different numbers of examples"
            return
        found = parts.squares()
        if found is None:
            self.problem = MIXED
            return
        self.example_sq.append(found)
        G = self.added()
        self.C = total_sq(G.reshape(1, -1) if G.ndim < 2 else matrix(G))
        self.inner = self.gap = self.own_sq = None
        if self.passes == 1:
            self.inner = parts.inner(G)
            if self.inner is None and self.exact:
                self.inner = parts.products_inner(G)
        if parts.dense is not None and (self.passes == 1 or self.own is not None):
            own = parts.dense.sum(0)
            self.own = own if self.own is None else self.own + own
            self.own_sq = total_sq(self.own[None])
            apart = total_sq((self.own - G.flatten().to(own.dtype))[None])
            self.gap = (apart / torch.maximum(self.own_sq, self.C)).sqrt()
        elif self.inner is not None and not parts.products:
            self.gap = (1 - self.inner.sum() / self.C).abs()

    def added(self) -> Tensor:
        """What this step has added to .grad: G, of this rank's shard."""
        now = local(self.weight.grad)
        found = now if self.before is None else now - local(self.before)
        return found.to_dense() if found.is_sparse else found

    def squares(self) -> Float[Tensor, " S"]:
        """‖g_s‖² of all passes."""
        return joined(self.example_sq)
