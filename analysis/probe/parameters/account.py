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
        flat = wide(g).reshape(len(g), g.shape[1:].numel())
        if len(g) == 1:  # autograd may take it for .grad, which DDP and others go on to write to
            flat = flat.clone()
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
    weight: Any  # the parameter whose .grad it is
    exact: bool = False
    several: bool = False  # whether ranks average .grad
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
    G: Any = None  # what was added to .grad, where other ranks have a part in it,
    kept: Parts | None = None  # and the parts of the one pass, until all of G is here
    problem: str | None = None
    note: str = ""

    def open(self, task: int) -> Parts:
        """The parts of this pass, before autograd adds to .grad."""
        if self.task != task:
            self.task, self.parts = task, Parts()
            now = stamp(self.weight)
            if self.passes and now != self.stamp:  # cleared between passes: LBFGS, SAM
                self.passes, self.example_sq, self.own, self.C = 0, [], None, None
            if not self.passes:
                self.before = None if self.weight.grad is None else self.weight.grad.clone()
            self.stamp = now
        return self.parts

    def close(self) -> None:
        """The pass has ended."""
        parts, self.parts, self.task = self.parts, Parts(), -1
        then, self.stamp = self.stamp, stamp(self.weight)
        unformed = then == self.stamp and not hasattr(self.weight, "placements")  # FSDP's is later
        if unformed or self.problem is not None or not parts:
            return  # a pass for the gradient of something else
        self.passes += 1
        if parts.examples < 0:
            self.problem = "its uses in one backward pass have different numbers of examples"
            return
        found = parts.squares()
        if found is None:
            self.problem = MIXED
            return
        self.example_sq.append(found)
        if parts.dense is None:
            self.own = None
        elif self.passes == 1 or self.own is not None:
            own = parts.dense.sum(0)
            self.own = own if self.own is None else self.own + own
        if self.weight.grad is None:
            return  # FSDP keeps it elsewhere until ranks are in step
        G = self.added()
        self.C = total_sq(matrix(local(G)) if G.ndim > 1 else local(G).reshape(1, -1))
        self.kept = parts if self.passes == 1 else None
        if self.several:
            self.G = G.clone()
        else:
            self.meet(G)

    def added(self) -> Any:
        """What this step has added to .grad: G, distributed as the parameter is."""
        now = self.weight.grad
        found = now if self.before is None else now - self.before
        return found.to_dense() if found.is_sparse else found

    def meet(self, G: Tensor) -> None:
        """G is here: note ⟨g_s, G⟩ of each example, where one pass made it, and how far it is from
        what the parts of all passes have told.
        """
        parts, self.kept = self.kept, None
        self.inner = self.gap = self.own_sq = None
        if parts is not None:
            self.inner = parts.inner(G)
            if self.inner is None and self.exact:
                self.inner = parts.products_inner(G)
        assert self.C is not None
        if self.own is not None:
            self.own_sq = total_sq(self.own[None])
            apart = total_sq((self.own - G.flatten().to(self.own.dtype))[None])
            self.gap = (apart / torch.maximum(self.own_sq, self.C)).sqrt()
        elif parts is not None and self.inner is not None and not parts.products:
            self.gap = (1 - self.inner.sum() / self.C).abs()

    def squares(self) -> Float[Tensor, " S"]:
        """‖g_s‖² of all passes."""
        return joined(self.example_sq)

    def let_go(self) -> None:
        """The step is over: what was to be read with other ranks will not be."""
        self.G = self.kept = None
