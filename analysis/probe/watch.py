"""Watch: how what a step tells of a weight matrix is gathered, use by use and pass by pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.probe.product import Product
from sketchvar.analysis.probe.product import example_sq as squares
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.probe.units import Dimension, Unit
from sketchvar.estimators import Moments
from sketchvar.estimators.layers.forms import Conv2dForm, Form
from sketchvar.estimators.moments import norm, wide

NOT_FINITE = "its gradient is not finite"


@dataclass(eq=False)
class Use:
    """One product with the weight, in forward and then in backward: pass number ``task``, -1 until
    it is known.
    """

    watch: "Watch"
    form: Form
    unit: Unit
    task: int
    examples: int
    size: tuple[int, int]  # p and q
    x_norm: Tensor
    first: str  # who read this X first
    dtype: torch.dtype = torch.float32
    y_norm: Tensor | None = None
    data: Tensor | None = None  # which rows are not padding, where that is known
    example_sq: Tensor | None = None
    product: Product | None = None  # X and Y themselves, where other uses may share the examples
    pair: tuple[Tensor, Tensor] | None = None

    def in_sequence(self, x: Tensor) -> bool:
        """Whether its examples are stretches of rows, one after another."""
        return (
            x.ndim > 2
            and isinstance(self.unit, Dimension)
            and self.unit.number == 0
            and not isinstance(self.form, Conv2dForm)
        )

    def arrive(
        self, x: Tensor | None, y: Tensor, example_sq: Tensor | None, by_example: bool, paired: bool
    ) -> None:
        """Take what is needed of X and Y; ``example_sq`` if it is known already."""
        self.watch.add(self)
        self.dtype = y.dtype
        self.y_norm = y_norm = self.form.gradient_row_norms(y)
        self.data = self.unit.rows(len(y_norm))
        if x is None:
            return
        x = x.detach().to(
            y.dtype
        )  # under autocast the product is formed in the dtype of the output
        if paired:
            self.pair = self.form.rows(x), self.form.gradient_rows(y)
        if by_example and self.watch.forwards > 1:
            self.product = Product(self.form, self.unit, x, y)
        elif by_example and example_sq is None and self.examples == len(y_norm):
            self.example_sq = (
                self.x_norm.double() * y_norm.double()
            ).square()  # a row is an example
        elif by_example:
            product = Product(self.form, self.unit, x, y)
            self.example_sq = squares([product]) if example_sq is None else example_sq


@dataclass(eq=False)
class Watch:
    """A weight matrix under observation: ``part`` of a parameter of ``module``.

    ``alone``: no other module has the parameter, so that G is what is added to its ``.grad``; else
    ``own`` sums this layer's contributions.
    """

    name: str
    module: nn.Module
    parameter: str
    weight: nn.Parameter
    alone: bool = True
    part: slice | None = None
    uses: list[Use] = field(default_factory=list)
    example_sq: list[Tensor] = field(default_factory=list)
    examples: int = 0
    forwards: int = 0  # in this pass, until its backward pass has ended
    before: Tensor | None = None  # what .grad held when the step's first gradient came
    within: bool = False  # a backward pass
    stamp: tuple[int, int] | None = None  # of .grad before this backward pass, or after the last
    unformed: bool = False  # a backward pass left .grad as it was
    grad_norm: Tensor | None = None  # of this rank's shard of G
    own: Tensor | None = None
    problem: str | None = None

    def reset(self) -> None:
        """Forget the step before."""
        self.uses, self.example_sq, self.examples, self.forwards = [], [], 0, 0
        self.before = self.stamp = self.grad_norm = self.own = self.problem = None
        self.within = self.unformed = False

    def gradient(self) -> Tensor | None:
        """What this step has added to .grad so far: G, or this rank's shard of it."""
        grad = self.weight.grad
        if grad is None:
            return None
        grad = local(grad if self.before is None else grad - self.before)
        return grad if self.part is None else grad[self.part]

    def add(self, use: Use) -> None:
        """Called before autograd adds to .grad. Raises RuntimeError where .grad is no longer what a
        pass left.
        """
        if not self.within:
            now, grad = stamp(self.weight), self.weight.grad
            if not self.uses:
                self.before = grad.clone() if grad is not None and self.alone else None
            elif now != self.stamp:
                raise RuntimeError(
                    f"the gradient of {self.name} was changed between two backward passes of one"
                    " step; call probe.step() after every optimizer step"
                )
            self.within, self.stamp = True, now
        self.uses.append(use)

    def close(self, task: int) -> None:
        """The end of a backward pass: its uses had the same examples, of which each has one
        gradient, their sum.
        """
        now = [use for use in self.uses if use.task == task]
        self.forwards, self.within = 0, False
        then, self.stamp = self.stamp, stamp(self.weight)
        if (
            then == self.stamp and self.alone and not hasattr(self.weight, "placements")
        ):  # FSDP may form it later
            self.uses = [
                use for use in self.uses if use.task != task
            ]  # a pass for the gradient of something else
            self.unformed = True
            return
        if len({use.examples for use in now}) > 1:
            counts = " and ".join(str(use.examples) for use in now)
            self.problem = (
                f"used with different numbers of examples in one backward pass ({counts})"
            )
            return
        self.examples += now[0].examples
        known = [use.example_sq for use in now if use.example_sq is not None]
        products = [use.product for use in now if use.product is not None]
        if len(now) == len(products):
            self.example_sq.append(squares(products))
        elif len(now) == 1:
            self.example_sq += known
        elif known:
            self.problem = (
                f"used {len(now)} times under reentrant checkpointing; use_reentrant=False can be"
                " read"
            )
        for use in now:
            use.product = use.example_sq = None
        if self.alone:
            gradient = self.gradient()
            self.grad_norm = None if gradient is None else norm(gradient)

    def collect(self, gradient: Tensor) -> None:
        """Sum this layer's own contributions to the gradient of a weight that others share."""
        self.own = gradient.detach() if self.own is None else self.own + gradient.detach()

    def statistics(self, ranks: Ranks) -> list[Tensor]:
        """This rank's ‖xᵢ‖, ‖yᵢ‖, ‖g_s‖² and (its share of C, rows of data, examples); four empty
        ones if unread.
        """
        if not self.alone:  # every rank takes part in the sum
            whole = (
                local(self.weight).new_zeros(self.weight.shape) if self.own is None else self.own
            )
            self.grad_norm = norm(ranks.sum(whole) / ranks.size)
        if self.reason() is not None or self.grad_norm is None:
            return [local(self.weight).new_zeros(0, dtype=torch.float64)] * 4
        x_norm = joined([use.x_norm for use in self.uses])
        y_norm = joined([use.y_norm for use in self.uses if use.y_norm is not None])
        share = self.grad_norm.double().square() / (
            ranks.replicas(self.weight) if self.alone else ranks.size
        )
        counts = share.new_tensor([len(y_norm), self.examples])
        for use in self.uses:
            if use.data is not None:
                counts[0] -= (~use.data).sum()
        squares_ = joined(self.example_sq) if self.example_sq else x_norm[:0]
        return [x_norm, y_norm, squares_, torch.cat([share.view(1), counts])]

    def reason(self) -> str | None:
        """Why nothing can be read, or None."""
        if self.problem is not None:
            return self.problem
        if self.uses and self.grad_norm is not None:
            return None
        if self.uses or self.unformed:
            return "its weight gradient was not in .grad at the end of the backward pass"
        return "no gradient reached it"

    @property
    def input_of(self) -> str:
        """The first layer that read what this one read, where that is one; else this one."""
        first = {use.first for use in self.uses}
        return first.pop() if len(first) == 1 else self.name

    @property
    def pair(self) -> tuple[Tensor, Tensor] | None:
        """X and Y, where they were asked for."""
        pairs = [use.pair for use in self.uses if use.pair is not None]
        return (
            (torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])) if pairs else None
        )


def stamp(weight: nn.Parameter) -> tuple[int, int] | None:
    """Which tensor a gradient is, and how often it was written to."""
    return None if weight.grad is None else (id(weight.grad), local(weight.grad)._version)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """One after another; no copy of a single one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors))


def local(t: Tensor) -> Tensor:
    """This rank's shard of a distributed tensor; any other as it is."""
    return t.to_local() if hasattr(t, "to_local") else t


def layers(watches: Sequence[Watch], ranks: Ranks, scale: Tensor | float) -> dict[str, Layer]:
    """What was gathered on all ranks, in the scale of their averaged gradient over ``scale``; one
    device synchronisation. Watches that cannot be read have their ``problem`` set where they did
    not have a ``reason``.
    """
    found: list[tuple[Watch, Moments, Tensor | None]] = []
    facts: list[Tensor] = []
    everywhere = ranks.gather([t for watch in watches for t in watch.statistics(ranks)])
    scaled = not isinstance(scale, float) or ranks.size > 1
    for i, watch in enumerate(watches):
        ran = [rank[4 * i : 4 * i + 4] for rank in everywhere if len(rank[4 * i + 3])]
        if len(ran) < len(everywhere):
            if ran:
                watch.problem = f"it was measured on {len(ran)} of {len(everywhere)} ranks"
            continue
        x_norm, y_norm, squares_ = (
            joined(side).double() for side in list(zip(*ran, strict=True))[:3]
        )
        facts.append(ran[0][3] if len(ran) == 1 else torch.stack([rank[3] for rank in ran]).sum(0))
        C = facts[-1][0]
        if scaled:
            y_norm, squares_, C = (
                y_norm / (scale * ranks.size),
                squares_ / (scale * ranks.size) ** 2,
                C / scale**2,
            )
        pair = watch.pair
        if pair is not None and scaled:
            pair = pair[0], wide(pair[1]) / scale  # one rank: pairs are kept of no more
        moments = Moments(*watch.uses[0].size, x_norm.square(), y_norm.square(), C, pair)
        found.append((watch, moments, squares_ if watch.example_sq else None))
    result = {}
    numbers = torch.stack(facts).tolist() if facts else []
    for (watch, moments, example_sq), (c, rows, examples) in zip(found, numbers, strict=True):
        if math.isfinite(c):  # as it is not where an entry of X or Y is not
            dtype, input_of = watch.uses[0].dtype, watch.input_of
            result[watch.name] = Layer(
                watch.name, moments, int(examples), example_sq, int(rows), dtype, input_of
            )
        else:
            watch.problem = NOT_FINITE
    return result
