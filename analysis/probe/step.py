"""Step: what a measured step gathers, from backward passes that count only once they have ended."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from sketchvar.analysis.noise.closed import total_sq
from sketchvar.analysis.probe.product import example_sq as squares
from sketchvar.analysis.probe.sums import inner_products
from sketchvar.analysis.probe.watch import Use, Watch
from sketchvar.analysis.probe.weighing import Weigh, read_metric
from sketchvar.estimators.metric import Diagonal

UNFORMED = "its weight gradient was not in .grad at the end of the backward pass"
BROKEN = "an error ended its backward pass before the end"
TWICE = "its output gradient came twice: a second derivative, or retain_graph"
WEIGHED = (
    "its gradient was accumulated over several backward passes, each with weights= of its own:"
    " measure a single one"
)
NOT_FINITE = "its gradient is not finite"
NOT_REACHED = "no gradient reached it"
ELSEWHERE = (
    "its gradient did not come by its own module's forward: something else reads the weight, as a"
    " fused function, a parent module or one that shares it does"
)
ASIDE = "its forward ran with another tensor than its parameter, as under functional_call"


@dataclass(eq=False)
class Tally:
    """What the passes of a step tell of one weight matrix.

    The gradient of the step is what has been added to ``.grad`` since it was last cleared:
    accumulation sums its passes, and of several evaluations with clearing between them (LBFGS, SAM)
    the last counts.
    """

    watch: Watch
    weight: Any  # the parameter whose .grad it is
    kept: bool  # whether the product's own gradients are summed
    several: bool  # whether ranks average .grad
    whole: bool  # whether gradients are compared in all of their entries
    exact: bool = False  # whether inner products ⟨g_s, G⟩ are formed
    begun: WeakSet[Use] = field(default_factory=WeakSet)  # products that have not gone backward
    uses: list[Use] = field(default_factory=list)
    example_sq: list[Tensor] = field(default_factory=list)
    inner: Tensor | None = None
    weighed_sq: list[Tensor] = field(default_factory=list)  # the same in another metric
    examples: int = 0
    passes: int = 0
    before: Tensor | None = None  # what .grad held when the first pass came
    stamp: tuple[int, int] | None = None  # of .grad when a pass began, or as the last one left it
    own: Tensor | None = None  # the product's own gradients, summed
    mean: Tensor | None = None  # that over all ranks, where it was asked for
    own_sq: Tensor | None = None
    grad_sq: Tensor | None = None  # of what was added to .grad, of this rank's shard of it
    seen: Any = None  # the product's own gradient, at a glance
    added: Tensor | None = None  # what was added to .grad, at a glance
    problem: str | None = None
    note: str = ""
    mixed: bool = False  # .grad is not the product's gradient alone
    unformed: bool = False
    cleared: bool = False  # between passes

    def open(self, weight: Any) -> None:
        """A pass begins, before autograd adds to .grad."""
        now = stamp(weight)
        if self.passes and (weight is not self.weight or now != self.stamp):
            self.uses, self.example_sq, self.examples, self.passes = [], [], 0, 0
            self.weighed_sq = []
            self.own = self.own_sq = self.grad_sq = self.seen = self.added = None
            self.cleared = True
        if not self.passes:
            self.before = None if weight.grad is None else weight.grad.clone()
        self.weight, self.stamp = weight, now

    def close(self, own: "Own") -> None:
        """A pass has ended: its uses had the same examples, of which each has one gradient, their
        sum.
        """
        uses = own.uses
        self.begun.clear()
        then, self.stamp = self.stamp, stamp(self.weight)
        if then == self.stamp and not self.sharded:  # FSDP may form it later
            self.unformed = True  # a pass for the gradient of something else
            return
        if own.twice:
            self.problem = TWICE
        if len({use.examples for use in uses}) > 1:
            counts = " and ".join(str(use.examples) for use in uses)
            self.problem = (
                f"used with different numbers of examples in one backward pass ({counts})"
            )
        if self.problem is not None or not uses:
            return
        self.gather(uses)
        self.seen = own.seen if self.passes == 1 or own.seen is None else self.seen + own.seen
        if own.sum is not None and (self.passes == 1 or self.own is not None):
            self.own = own.sum if self.own is None else self.own + own.sum
            self.own_sq = total_sq(matrix(self.own))
        else:
            self.own, self.own_sq = None, own.sq if self.passes == 1 else None
        formed = self.weight.grad is not None  # FSDP keeps it elsewhere until ranks are in step
        row = first_row(self.weight) if self.watch.part is None else None
        if formed and not self.watch.tied and (row is not None or not self.sharded):
            self.added = self.gradient(lambda g: self.glance(g, row or 0))
        if formed and (self.own_sq is None or self.several):
            self.grad_sq = total_sq(matrix(self.gradient()))
        if self.exact and self.example_sq and not self.several:  # else G is not here yet
            self.inner = self.inner_of_pass()

    def inner_of_pass(self) -> Tensor | None:
        """⟨g_s, G⟩ of each example; None where G was made by several passes."""
        if self.passes > 1:
            return None
        if len(self.uses) == 1:
            return self.uses[0].inner
        return None if self.own is None else inner_products(self.uses, self.own)

    def gather(self, uses: list[Use]) -> None:
        """Take the uses of a pass that has ended."""
        self.passes += 1
        self.examples += uses[0].examples
        if self.passes > 1 and uses[0].weights is not None:
            self.problem = WEIGHED
        known = [use.example_sq for use in uses if use.example_sq is not None]
        products = [use.product for use in uses if use.product is not None]
        weighed = [use.weighed for use in uses if use.weighed is not None]
        if len(uses) == len(products):
            self.example_sq.append(squares(products))
            if len(weighed) == len(uses):
                self.weighed_sq.append(squares(products, weighed[0].metric.weights))
        elif len(uses) == 1:
            self.example_sq += known
            self.weighed_sq += [w.example_sq for w in weighed if w.example_sq is not None]
        elif known:
            self.problem = (
                f"used {len(uses)} times under reentrant checkpointing; use_reentrant=False can be"
                " read"
            )
        for use in uses:
            use.product = use.example_sq = None
        self.uses += uses

    def gradient(self, look: Any = lambda g: g) -> Tensor:
        """What this step has added to .grad so far, or what a linear ``look`` at it sees: G, or
        this rank's shard of it.
        """
        now = look(self.of_part(self.weight.grad))
        return now if self.before is None else now - look(self.of_part(self.before))

    def of_part(self, grad: Any) -> Tensor:
        """This rank's shard of a gradient, and of it the watched part."""
        here, part = local(grad), self.watch.part
        if part is None:
            return here
        before = (first_row(self.weight) or 0) if self.sharded else 0
        return here[max(part.start - before, 0) : max(part.stop - before, 0)]

    def glance(self, g: Tensor, row: int) -> Tensor:
        """``glance`` at a gradient; of one that is sharded, or of a shard that begins at this
        ``row``, sums of columns, which a sum over the ranks makes whole.
        """
        if not self.sharded:
            return glance(g, self.whole)
        m = matrix(g)
        places = torch.arange(row + 1.0, row + len(m) + 1, device=m.device)
        return places.cos().to(m.dtype) @ m  # the plain sums are 0 before a normalisation

    @property
    def sharded(self) -> bool:
        """Whether this rank has a part of the parameter only."""
        return hasattr(self.weight, "placements")

    @property
    def alone(self) -> bool:
        """Whether no more than one product of the next pass is known of."""
        return len(self.begun) < 2

    @property
    def C(self) -> Tensor | None:
        """‖G‖² of this process: of the product's own gradient where that is known."""
        return self.own_sq if self.own_sq is not None and not self.several else self.grad_sq

    def reason(self) -> str | None:
        """Why nothing can be read, or None."""
        if self.problem is not None:
            return self.problem
        if self.passes:
            return None if self.C is not None or self.kept else UNFORMED
        return UNFORMED if self.unformed else NOT_REACHED


@dataclass(eq=False)
class Own:
    """The gradients of one weight's own products in one pass."""

    uses: list[Use] = field(default_factory=list)
    sum: Tensor | None = None
    sq: Tensor | None = None
    seen: Tensor | None = None
    formed: int = 0
    twice: bool = False

    def add(self, g: Tensor, tally: Tally) -> None:
        """Take the gradient of one use, which autograd will go on to write to."""
        self.formed += 1
        seen = tally.glance(g, 0)
        self.seen = seen if self.seen is None else self.seen + seen
        if tally.kept or not tally.alone:
            self.sum = g.clone() if self.sum is None else self.sum.add_(g)
        else:
            self.sq = total_sq(matrix(g)) if self.formed == 1 else None


@dataclass(eq=False)
class Step:
    """``mixed``: watches whose .grad is known to be more, or less, than their product."""

    several: bool
    whole: bool
    mixed: frozenset[Watch]
    exact: bool  # whether inner products ⟨g_s, G⟩ are formed
    stamps: dict[Watch, tuple[int, int] | None]  # of .grad when the step began
    weigh: Weigh | None = None  # the metric, beside the Euclidean one
    needed: frozenset[str] = frozenset()  # of the closed forms in it
    metrics: dict[Watch, Diagonal | None] = field(default_factory=dict)
    sharded: dict[Watch, Any] = field(default_factory=dict)  # parameters, between the steps
    gathered: dict[Watch, Tensor] = field(default_factory=dict)  # weights of their entries
    unweighed: dict[Watch, str] = field(default_factory=dict)  # why a watch has none
    tallies: dict[Watch, Tally] = field(default_factory=dict)
    passes: dict[int, dict[Watch, Own]] = field(default_factory=dict)  # by autograd's number
    elsewhere: set[Watch] = field(default_factory=set)
    aside: set[Watch] = field(default_factory=set)
    scale: Tensor | float = 1.0
    coupled: str | None = None  # the BatchNorm that makes examples depend on each other
    readings: dict[int, Any] = field(default_factory=dict)  # by the id of the input
    outputs: dict[int, Any] = field(default_factory=dict)  # and what a BatchNorm may read, of its
    open: bool = True  # until the next step begins
    accounts: dict[int, Any] = field(default_factory=dict)  # of other parameters, by their ids
    read: Mapping[int, Any] | None = None  # those of all ranks, once they were read

    def fail(self, watch: Watch, error: Exception) -> None:
        """What was to be read of a weight could not be."""
        words = " ".join(str(error).split())
        self.tally(watch).problem = f"the probe could not read it: {type(error).__name__}: {words}"

    def tally(self, watch: Watch) -> Tally:
        """That of a watch, a new one if there is none."""
        found = self.tallies.get(watch)
        if found is None:
            kept, several = self.keeps(watch), self.several
            found = Tally(watch, watch.weight, kept, several, self.whole, self.exact)
            self.tallies[watch] = found
        return found

    def keeps(self, watch: Watch) -> bool:
        """Whether the product's own gradients are summed, for where .grad is something else or is
        with other ranks too.
        """
        together = self.several and (self.exact or self.weigh is not None)
        return watch.tied or watch in self.mixed or together

    def gather_weights(self) -> None:
        """Bring the weights of sharded parameters' entries together: all ranks alike, as they begin
        the step, for who can tell which will use a layer.
        """
        for watch, parameter in self.sharded.items():
            with contextlib.suppress(ValueError):  # which is told when its gradient comes
                if self.weigh is not None:
                    self.gathered[watch] = self.weigh(parameter).full_tensor()  # type: ignore[attr-defined]

    def metric_of(self, use: Use) -> Diagonal | None:
        """The metric of the gradient of a use, as it is when the first pass reaches it: before the
        optimizer's step.
        """
        watch = use.watch
        if self.weigh is not None and watch not in self.metrics:
            self.metrics[watch] = None
            try:
                weight, known = self.sharded.get(watch, watch.weight), self.gathered.get(watch)
                found = self.weigh(weight) if known is None else known
                self.metrics[watch] = read_metric(found, weight, watch.part, use.form)
            except Exception as error:
                self.unweighed[watch] = "no metric: " + " ".join(str(error).split())
        return self.metrics.get(watch)

    def finish(self, task: int, watches: Iterable[Watch]) -> None:
        """A backward pass has ended: the weight gradients are formed."""
        seen = self.passes.pop(task)
        for watch, own in seen.items():
            try:
                self.tallies[watch].close(own)
            except Exception as error:
                self.fail(watch, error)
        for watch in watches:
            tally = self.tallies.get(watch)
            if watch not in seen and (tally is None or not tally.passes):
                now = stamp(watch.weight)
                if now is not None and now != self.stamps.get(watch):
                    self.elsewhere.add(watch)

    def reason(self, watch: Watch) -> str | None:
        """Why nothing can be read of a weight, or None."""
        tally = self.tallies.get(watch)
        reason = NOT_REACHED if tally is None else tally.reason()
        if reason != NOT_REACHED:
            return reason
        if self.passes and tally is not None:
            return BROKEN
        if watch in self.elsewhere:
            return ELSEWHERE
        return ASIDE if watch in self.aside else NOT_REACHED


def stamp(weight: Any) -> tuple[int, int] | None:
    """Which tensor a gradient is, and how often it was written to."""
    grad = None if weight is None else weight.grad
    return None if grad is None else (id(grad), local(grad)._version)


def glance(g: Tensor, whole: bool) -> Tensor:
    """A few numbers that are linear in a gradient: its diagonal, or one sum over all of its
    entries, each with a weight of its own.
    """
    if not whole:
        return g.diagonal().clone()
    m = matrix(g)
    a, b = (torch.arange(1.0, size + 1, device=m.device).cos().to(m.dtype) for size in m.shape)
    return (a @ m @ b)[None]


def first_row(weight: Any) -> int | None:
    """Where this rank's rows of a sharded weight begin; None where it is not sharded by rows, in
    equal parts, as ``fully_shard`` does.
    """
    parts = [(i, p) for i, p in enumerate(getattr(weight, "placements", ())) if p.is_shard()]
    if [(type(p).__name__, p.dim) for _, p in parts] != [("Shard", 0)]:
        return None
    i, mesh, rows = parts[0][0], weight.device_mesh, weight.shape[0]
    return min(mesh.get_local_rank(i) * -(-rows // mesh.size(i)), rows)


def matrix(g: Tensor) -> Tensor:
    """A weight's gradient as a matrix: a convolution's has four dimensions."""
    return g.flatten(1) if g.ndim > 2 else g


def local(t: Any) -> Any:
    """This rank's shard of a distributed tensor; any other as it is."""
    return t.to_local() if hasattr(t, "to_local") else t
