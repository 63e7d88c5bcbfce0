"""The step that an optimizer takes per unit of gradient, entry by entry: the metric in which noise
counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

KNOWN = "Adam, AdamW, SGD and Adafactor"


@dataclass(frozen=True)
class Steps:
    """w ← w − ``sizes`` ∘ m with m ← βm + (1 − β)g, β the ``momentum``: what optimizers do at a
    frozen preconditioner.

    ``sizes`` (one entry per trainable weight, flat) is the learning rate times the optimizer's P:
    ηP = η/(√v̂ + ε) for Adam, η/(1 − β) for SGD. With ``nesterov`` the step is along
    βm + (1 − β)g. Weight decay, and the bias correction of m in the first steps, are left out.
    """

    sizes: Float[Tensor, " N"]
    momentum: float = 0.0
    nesterov: bool = False


def steps_of(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> Steps:
    """The steps of ``optimizer`` from its state as it is now, for these parameters one after
    another; 0 for those that it does not train.

    Raises ValueError for an adaptive optimizer that has no state yet and for groups of different
    momentum, TypeError for an optimizer that is not one of ``KNOWN``.
    """
    group_of = {p: group for group in optimizer.param_groups for p in group["params"]}
    parts, momenta = [], set()
    for p in parameters:
        group = group_of.get(p)
        if group is None:
            parts.append(torch.zeros_like(p).detach().flatten())
            continue
        size, momentum, nesterov = step_of(optimizer, p, group)
        parts.append(size.detach().to(p.dtype).expand_as(p).flatten())
        momenta.add((momentum, nesterov))
    if not momenta or not any(part.any() for part in parts):
        raise ValueError(
            "the optimizer moves none of the model's parameters; give the optimizer of this model,"
            " after some steps of training"
        )
    if len(momenta) > 1:
        raise ValueError(
            "a horizon needs one momentum for all parameters, got"
            f" {', '.join(f'{m:g}' for m, _ in sorted(momenta))}; give Steps(sizes, momentum)"
        )
    return Steps(torch.cat(parts), *momenta.pop())


def step_of(
    optimizer: torch.optim.Optimizer, p: nn.Parameter, group: dict[str, Any]
) -> tuple[Tensor, float, bool]:
    """Step sizes of one parameter, momentum, and whether that is Nesterov's."""
    state, rate = optimizer.state.get(p, {}), float(group["lr"])
    if "dampening" in group:
        beta = group["momentum"]
        size = rate * (1 - group["dampening"] if beta else 1) / (1 - beta)
        return torch.tensor(size, device=p.device), beta, group["nesterov"]
    if "betas" not in group and "beta2_decay" not in group:
        raise TypeError(
            f"the steps of {type(optimizer).__name__} are not known, only those of {KNOWN}; give"
            " Steps(sizes, momentum) with the learning rate times what it multiplies a gradient by"
        )
    if not state:
        if any(optimizer.state.values()):
            return torch.zeros((), device=p.device), *momentum_of(group)  # never had a gradient
        raise ValueError(
            f"{type(optimizer).__name__} has no state yet, so the size of its steps is not known;"
            " train for some steps first"
        )
    if "beta2_decay" in group:
        return adafactor(state, p, group), *momentum_of(group)
    if "exp_avg_sq" not in state:
        raise TypeError(
            f"{type(optimizer).__name__} keeps no exp_avg_sq; known are {KNOWN}; give"
            " Steps(sizes, momentum)"
        )
    second = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    corrected = second / (1 - group["betas"][1] ** float(state["step"]))
    return rate / (corrected.sqrt() + group["eps"]), *momentum_of(group)


def momentum_of(group: dict[str, Any]) -> tuple[float, bool]:
    return (group["betas"][0], False) if "betas" in group else (0.0, False)


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
