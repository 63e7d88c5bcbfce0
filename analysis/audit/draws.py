"""audit(): call a layer again and again at one input, and compare with what is right."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import nan

import pandas as pd
import torch
from torch import Tensor, nn

from sketchvar.analysis.audit.part import Part, judge
from sketchvar.analysis.audit.reference import find_reference
from sketchvar.estimators.norms import total_sq
from sketchvar.estimators.seeds import fold

LEAST = 4  # draws
GROUPS = 64  # of examples, at most, from which the minibatch's variance is estimated
OUTPUT, INPUT = "output", "input gradient"


@dataclass(frozen=True)
class Audit:
    """``parts``: "output", "input gradient" and, by the parameter's name, "weight gradient" and so
    on. ``left_out``: what has no counterpart, and the reason.
    """

    parts: Mapping[str, Part]
    left_out: Mapping[str, str]

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {part}" for name, part in self.parts.items())

    def rows(self) -> pd.DataFrame:
        """One row for each part: its numbers, and bias² and variance over the minibatch's."""
        return pd.DataFrame(
            [
                {
                    "part": name,
                    **asdict(part),
                    "growth": part.growth,
                    "bias_sq_ratio": part.bias_sq / part.minibatch if part.minibatch else nan,
                    "variance_ratio": part.variance / part.minibatch if part.minibatch else nan,
                }
                for name, part in self.parts.items()
            ]
        )


def audit(
    layer: nn.Module,
    x: Tensor,
    y: Tensor,
    draws: int = 64,
    seed: int = 0,
    reference: nn.Module | None = None,
) -> Audit:
    """Audit a layer that is to do what nn.Linear does, at an input ``x`` (... × p) and an output
    gradient ``y`` (... × q); draw i starts torch's generators from ``fold(seed, i)``.

    Right is what ``reference`` does, in float64; without one, nn.Linear of the layer's own weight
    and bias, or an adapter of PEFT in eval mode. Gradients are compared for every parameter of the
    same name; an example is one index of x's first dimension. The layer is called in the mode that
    it is in; its buffers are put back after each draw, and no ``.grad`` is touched. All draws are
    held until the end: draws × (np + nq + pq) numbers.

    >>> found = audit(nn.Linear(4, 3), torch.randn(8, 4), torch.randn(8, 3), draws=4)
    >>> {name: part.p_value for name, part in found.parts.items()}
    {'output': 1.0, 'input gradient': 1.0, 'weight gradient': 1.0, 'bias gradient': 1.0}

    Bias² is estimated by ‖mean − right‖² − variance / draws. The p-value approximates the law of
    ‖mean − right‖² by an F (Brunner, Dette, Munk 1997,
    https://doi.org/10.1080/01621459.1997.10473671): it takes as many draws as make means normal.
    Raises ValueError for fewer than 4 draws, shapes that do not fit, values that are not finite,
    and a layer that needs a ``reference``.
    """
    check(x, y, draws)
    right = copy.deepcopy(find_reference(layer, x, y) if reference is None else reference).double()
    kept: dict[str, list[Tensor]] = {}
    with keep_random_state(x.device):
        for i in range(draws):
            with keep_buffers(layer):
                torch.manual_seed(fold(seed, i))
                for name, found in call(layer, x, y).items():
                    kept.setdefault(name, []).append(found)
    x, y = x.double(), y.to(kept[OUTPUT][0].dtype).double()
    exact = call(right, x, y)
    minibatch = estimate_minibatch(right, x, y, exact)
    left_out = {name: "the reference has none" for name in kept if name not in exact}
    left_out |= {name: "the layer has none" for name in exact if name not in kept}
    parts = {}
    for name in exact:
        if name in kept:
            try:
                parts[name] = judge(kept.pop(name), exact[name], minibatch.get(name, nan))
            except ValueError as error:
                raise ValueError(f"{name} of {type(layer).__name__}: {error}") from None
    return Audit(parts, left_out)


def check(x: Tensor, y: Tensor, draws: int) -> None:
    """Raise ValueError for what cannot be audited."""
    if draws < LEAST:
        raise ValueError(f"audit needs {LEAST} draws or more for standard errors, got {draws}")
    if x.shape[:-1] != y.shape[:-1] or x.ndim < 2 or not x.numel() or not y.numel():
        raise ValueError(
            "audit needs x (... × p) and y (... × q) with the same dimensions before the last, and"
            f" one or more, got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )


def call(layer: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The output of a layer, and the gradients of its input and of the parameters that have one."""
    x = x.detach().requires_grad_()
    trained = {f"{name} gradient": p for name, p in layer.named_parameters() if p.requires_grad}
    with torch.enable_grad():
        output = layer(x)
    if not isinstance(output, Tensor) or output.shape != y.shape:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"audit needs a layer whose output is one tensor of the shape of y, {tuple(y.shape)};"
            f" that of {type(layer).__name__} is {shape}"
        )
    if not output.requires_grad:
        raise ValueError(
            f"no gradient comes back through {type(layer).__name__}: its output has no graph; audit"
            " it as it trains, outside of no_grad"
        )
    gradients = torch.autograd.grad(
        output, [x, *trained.values()], y.to(output.dtype), allow_unused=True
    )
    found = {OUTPUT: output, **dict(zip([INPUT, *trained], gradients, strict=True))}
    return {name: t.detach() for name, t in found.items() if t is not None}


def estimate_minibatch(
    layer: nn.Module, x: Tensor, y: Tensor, exact: Mapping[str, Tensor]
) -> dict[str, float]:
    """The variance of each parameter's gradient over minibatches of as many examples, by groups of
    them: Σ ‖g_s − w_s G‖²/(1 − w_s), w_s being a group's part of the examples. One example has
    none.
    """
    count = min(GROUPS, x.shape[0])
    total: dict[str, float] = {}
    for x_s, y_s in zip(x.tensor_split(count), y.tensor_split(count), strict=True):
        w = x_s.shape[0] / x.shape[0]
        for name, g in call(layer, x_s, y_s).items() if w < 1 else ():
            if name not in (INPUT, OUTPUT):
                off = float(total_sq(g - w * exact[name])) / (1 - w)
                total[name] = total.get(name, 0.0) + off
    return total


@contextmanager
def keep_random_state(device: torch.device) -> Iterator[None]:
    """Within, torch's generators may be seeded; they go on as before."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def keep_buffers(layer: nn.Module) -> Iterator[None]:
    """Within, the layer's buffers may change; they are put back."""
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    yield
    for name, buffer in before.items():
        owner, _, leaf = name.rpartition(".")
        setattr(layer.get_submodule(owner), leaf, buffer)
