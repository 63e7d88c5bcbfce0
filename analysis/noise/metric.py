"""The step that an optimizer takes per unit of gradient, entry by entry: the metric in which noise
counts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

KNOWN = "Adam, AdamW, SGD and Adafactor"
DEAD = 1000.0
NO_STATE = (
    "{} has no state for it before its first update, so its metric is not known: it is measured"
    " from the step after that on"
)


@dataclass(frozen=True)
class Steps:
    """w ← w − ``sizes`` ∘ m with m ← βm + (1 − β)g, β the ``momentum``: what an optimizer does at a
    frozen preconditioner.

    ``sizes`` (one per trainable weight, flat) is the learning rate times the optimizer's P:
    ``rate``/(√``second`` + ``epsilon``) for Adam, whose ``second`` is v̂, a mean of g² that forgets
    1 − ``decay`` of itself in a step; else ``rate`` itself, η/(1 − β) for SGD. With ``nesterov``
    the step is along βm + (1 − β)g. Weight decay, and the correction of m in the first steps, are
    left out.
    """

    rate: Float[Tensor, " N"]
    momentum: float = 0.0
    nesterov: bool = False
    second: Float[Tensor, " N"] | None = None
    decay: float = 1.0
    epsilon: float = 0.0

    @cached_property
    def sizes(self) -> Float[Tensor, " N"]:
        if self.second is None:
            return self.rate
        return self.rate / (self.second.sqrt() + self.epsilon)

    def after(self, squares: Float[Tensor, " N"], noise: Float[Tensor, " N"]) -> "Steps":
        """The steps when gradients of these squares have been seen, as Adam sees them before it
        moves: a weight that was quiet for long does not jump with the first gradient that it gets.

        Nor does one whose gradient is always 0, where an estimator's is not: where the square of
        the ``noise`` is more than ``DEAD`` times what was seen, it is taken to have been seen too.
        """
        if self.second is None:
            return self
        seen = self.decay * self.second + (1 - self.decay) * squares
        return replace(self, second=torch.maximum(seen, noise.square() / DEAD))


def steps_of(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> Steps:
    """The steps of ``optimizer`` from its state as it is now, for these parameters one after
    another; 0 for those that it does not train.

    Raises ValueError for an adaptive optimizer that has no state yet and for groups that differ in
    more than their learning rate, TypeError for an optimizer that is not one of ``KNOWN``.
    """
    group_of = {p: group for group in optimizer.param_groups for p in group["params"]}
    rates, seconds, kinds = [], [], set()
    for p in parameters:
        rate, second = torch.zeros_like(p), None
        if p in group_of:
            rate, second, kind = step_of(optimizer, p, group_of[p])
            kinds.add(kind)
        rates.append(rate.detach().to(p.dtype).expand_as(p).flatten())
        seconds.append((torch.ones_like(p) if second is None else second).detach().flatten())
    if not any(rate.any() for rate in rates):
        raise ValueError(
            "the optimizer moves none of the model's parameters; give the optimizer of this model,"
            " after some steps of training"
        )
    if len(kinds) > 1:
        raise ValueError(
            "a horizon needs one momentum, β₂ and ε for all parameters, got"
            f" {', '.join(str(kind.momentum) for kind in sorted(kinds))} as momenta; give"
            " Steps(rate, momentum)"
        )
    kind = kinds.pop()
    second = torch.cat(seconds) if kind.adaptive else None
    return Steps(torch.cat(rates), kind.momentum, kind.nesterov, second, kind.decay, kind.epsilon)


def weigh_progress(optimizer: torch.optim.Optimizer) -> Callable[[nn.Parameter], Tensor]:
    """Make the function parameter -> P, in its shape: what the optimizer's next step multiplies a
    gradient by, but for the learning rate; 1/(√v̂ + ε) for Adam. The metric of the linear progress
    of a step, and of the noise of many.

    P is from the optimizer's state as it is, before the step: v̂ has not seen the gradient whose
    noise is weighed, on which P would else depend (``Steps.after`` has the P that moves). Where
    no gradient has ever been, v̂ = 0, P is 0: nothing is known of the step there.

    The function raises ValueError for a parameter without state and one that the optimizer does
    not train, TypeError for an optimizer that is not one of ``KNOWN``.
    """

    def weigh(p: nn.Parameter) -> Tensor:
        group = next((g for g in optimizer.param_groups if any(p is q for q in g["params"])), None)
        if group is None:
            raise ValueError(f"{type(optimizer).__name__} does not train it, so it has no metric")
        if ("betas" in group or "beta2_decay" in group) and not optimizer.state.get(p):
            raise ValueError(NO_STATE.format(type(optimizer).__name__))
        if "exp_avg_sq" not in (state := optimizer.state.get(p, {})):
            return step_of(optimizer, p, {**group, "lr": 1.0})[0].detach()
        second, corrected = second_of(state, group)
        root = second.sqrt()
        never = root == 0
        root.mul_(corrected**-0.5).add_(group["eps"])
        return root.reciprocal_().masked_fill_(never, 0.0)

    return weigh


def weigh_update(optimizer: torch.optim.Optimizer) -> Callable[[nn.Parameter], Tensor]:
    """Make the function parameter -> P², P as in ``weigh_progress``: the metric of the step that is
    taken.
    """
    progress = weigh_progress(optimizer)
    return lambda p: progress(p).square()


class Kind(NamedTuple):
    """What all parameters of an optimizer must have in common."""

    momentum: float
    nesterov: bool = False
    adaptive: bool = False
    decay: float = 1.0
    epsilon: float = 0.0


def step_of(
    optimizer: torch.optim.Optimizer, p: nn.Parameter, group: dict[str, Any]
) -> tuple[Tensor, Tensor | None, Kind]:
    """Rate and second moment of one parameter, and the optimizer's kind."""
    state, rate = optimizer.state.get(p, {}), float(group["lr"])
    if "dampening" in group:
        beta = group["momentum"]
        rate *= (1 - group["dampening"] if beta else 1) / (1 - beta)
        return torch.full_like(p, rate), None, Kind(beta, group["nesterov"])
    if "betas" not in group and "beta2_decay" not in group:
        raise TypeError(
            f"the steps of {type(optimizer).__name__} are not known, only those of {KNOWN}; give"
            " Steps(rate) with the learning rate times what it multiplies a gradient by"
        )
    if not any(optimizer.state.values()):
        raise ValueError(
            f"{type(optimizer).__name__} has no state yet, so the size of its steps is not known;"
            " train for some steps first"
        )
    if "beta2_decay" in group:
        return adafactor(state, p, group) if state else torch.zeros_like(p), None, Kind(0.0)
    kind = Kind(group["betas"][0], False, True, group["betas"][1], group["eps"])
    if not state:  # never had a gradient
        return torch.zeros_like(p), None, kind
    if "exp_avg_sq" not in state:
        raise TypeError(
            f"{type(optimizer).__name__} keeps no exp_avg_sq; known are {KNOWN}; give Steps(rate)"
        )
    second, corrected = second_of(state, group)
    return torch.full_like(p, rate), second / corrected, kind


def second_of(state: dict[str, Any], group: dict[str, Any]) -> tuple[Tensor, float]:
    """Adam's v, and what v̂ divides it by."""
    second = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    return second.detach(), 1 - group["betas"][1] ** float(state["step"])


def adafactor(state: dict[str, Any], p: Tensor, group: dict[str, Any]) -> Tensor:
    """Step sizes of ``torch.optim.Adafactor``, but for its clipping of updates, which a single
    gradient decides.

    Source: Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235, algorithms 4 and 5.
    """
    least, scale = group["eps"]
    rate = min(float(group["lr"]), 1 / float(state["step"]) ** 0.5)
    rate *= max(scale, float(p.detach().norm()) / p.numel() ** 0.5)
    if "row_var" in state:
        rows, columns = state["row_var"], state["col_var"]
        second = rows @ columns / rows.mean(dim=-2, keepdim=True).clamp(min=least or 0.0)
    else:
        second = state["variance"]
    return rate / second.clamp(min=(least or torch.finfo(p.dtype).eps) ** 2).sqrt()
