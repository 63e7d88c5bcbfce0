"""Weighing: what a probe measures of a layer in another metric than the Euclidean one."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sketchvar.analysis.noise import weigh_progress, weigh_update
from sketchvar.estimators import Choice, Moments
from sketchvar.estimators.layers.forms import Form
from sketchvar.estimators.metric import Diagonal
from sketchvar.estimators.norms import wide

METRICS = {"progress": weigh_progress, "update": weigh_update}  # by an optimizer's steps
BLOCK = 256  # rows at a time: what is made of them stays in the cache
Weigh = Callable[[nn.Parameter], Tensor]  # parameter -> weights of its gradient, in its shape


def as_weigh(metric: Any) -> Weigh | None:
    """What a probe's ``metric`` means: an optimizer stands for ``noise.weigh_progress`` of it.

    Raises TypeError for what is neither an optimizer nor a function.
    """
    if isinstance(metric, torch.optim.Optimizer):
        return weigh_progress(metric)
    if metric is not None and not callable(metric):
        raise TypeError(
            "metric= is the optimizer, or a function of a parameter that gives weights in its"
            f" shape, as noise.weigh_update(optimizer) makes one; got {metric!r}"
        )
    return metric


def check_weigh(weigh: Weigh | None, parameters: Sequence[nn.Parameter]) -> None:
    """Raise TypeError where an optimizer's steps are not known; what else is wrong may not be so
    once it has a state.
    """
    for p in parameters:
        with contextlib.suppress(ValueError):
            if weigh is not None:
                weigh(p)


def needed_statistics(choices: Sequence[Choice]) -> frozenset[str]:
    """Which of Q and ``rows_sq`` the closed forms ask for in a metric; both where nobody says what
    will be asked.
    """
    if not choices:
        return frozenset(("Q", "rows_sq"))
    found: set[str] = set()
    for choice in choices:
        if not choice.needs_pair:  # the pair has them
            m = Moments.of(torch.eye(4, 3), torch.ones(4, 2), torch.ones(3, 2))
            choice.told(m.y_sq).variance(m)
            found |= {"Q", "rows_sq"} & vars(m).keys()
    return frozenset(found)


def read_metric(weights: Tensor, parameter: Any, part: slice | None, form: Form) -> Diagonal:
    """The metric of a layer, of weights p × q. Raises ValueError unless they have the shape of the
    parameter.
    """
    found = weights.detach()
    if found.shape != parameter.shape:
        raise ValueError(
            f"metric= gave weights of shape {tuple(found.shape)} for a parameter of shape"
            f" {tuple(parameter.shape)}"
        )
    return Diagonal(form.matrix(found if part is None else found[part]))


class Weighed:
    """What one use of a weight tells in a ``metric``, as far as it is ``needed``."""

    def __init__(
        self,
        metric: Diagonal,
        needed: frozenset[str],
        example_sq: Float[Tensor, " S"] | None,
    ) -> None:
        self.metric, self.needed, self.example_sq = metric, needed, example_sq
        self.gradient: Float[Tensor, "p q"] | None = None
        self.rows_sq: Float[Tensor, " n"] | None = None
        self.sides: tuple[Tensor, Tensor] | None = None  # squared norms of columns of X and Y

    def take(self, x: Float[Tensor, "n p"], y: Float[Tensor, "n q"], by_row: bool) -> None:
        """Take what closed forms need of X and Y; ``by_row`` where each row is an example."""
        rows = by_row or "rows_sq" in self.needed
        if not rows and "Q" not in self.needed:
            return
        like, sizes = wide(y[:0]), (x.shape[1], y.shape[1])
        weights = self.metric.weights.T.to(like.dtype)
        room = [like.new_empty(min(BLOCK, len(x)), size) for size in (*sizes, sizes[0])]
        sums = [like.new_zeros(size, dtype=torch.float64) for size in sizes]
        found = like.new_empty(len(x))
        for start in range(0, len(x), BLOCK):
            a, b = (wide(t[start : start + BLOCK]) for t in (x, y))
            a_sq, b_sq, weighed = (t[: len(a)] for t in room)
            torch.mul(a, a, out=a_sq)
            torch.mul(b, b, out=b_sq)
            if "Q" in self.needed:
                sums[0] += a_sq.sum(0)
                sums[1] += b_sq.sum(0)
            if rows:
                torch.mm(b_sq, weights, out=weighed)
                torch.sum(weighed.mul_(a_sq), 1, out=found[start : start + len(a)])
        self.sides = (sums[0], sums[1]) if "Q" in self.needed else None
        self.rows_sq = found if rows else None
        if by_row:
            self.example_sq = found.double()
