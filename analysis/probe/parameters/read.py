"""Reading every parameter of a step: what its products told, or its account."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sketchvar.analysis.noise.layer import Layer
from sketchvar.analysis.noise.parameters import Gradient
from sketchvar.analysis.probe.parameters.account import ALIKE, OUTSIDE, Account
from sketchvar.analysis.probe.parameters.across import gather_accounts
from sketchvar.analysis.probe.patterns import LEFT_OUT, is_named
from sketchvar.analysis.probe.ranks import Ranks
from sketchvar.analysis.probe.step import NOT_FINITE, WEIGHED, Step
from sketchvar.analysis.probe.watch import Watch

RECURRENT = (
    "a recurrent layer uses its weights at every time step, inside one function that tells nothing"
    " of them"
)
NOTHING = 1e-9  # of ‖G‖² of all parameters
MEASURED = ": the part that came by its module's forward is measured"
UNSEEN = "no gradient came by the forward of a module of its own"


def read_parameters(
    model: nn.Module, step: Step, layers: Mapping[str, Layer], watches: Mapping[Any, Watch],
    weights: Tensor | str | None, named: Collection[str], ranks: Ranks,
) -> dict[str, Gradient | str]:  # fmt: skip
    """Name of each trained parameter -> its gradient by example, of all ranks, or why there is
    none.

    ``layers`` are what the step told of products, ``watches`` by their places; ``named`` are the
    patterns of what was to be measured.
    """
    parts: dict[int, list[Watch]] = {}
    beside: dict[nn.Module, list[Watch]] = {}
    for watch in watches.values():
        parts.setdefault(id(watch.weight), []).append(watch)
        beside.setdefault(watch.module, []).append(watch)
    found: dict[str, Gradient | str] = {}
    owned = owned_parameters(model)
    given = None if isinstance(weights, str) else weights
    accounts, whole = gather_accounts(step.accounts, [p for *_, p in owned], given, ranks)
    weights = weights if isinstance(weights, str) else whole
    step.read = accounts
    wrong = check_accounts(accounts)
    for name, module, key, p in owned:
        if not p.requires_grad:
            continue
        kind, account = kind_of_parameter(module, key), accounts.get(id(p))
        seen = [layers[w.name] for w in parts.get(id(p), ()) if w.name in layers]
        if id(p) in wrong:
            found[name] = wrong[id(p)]
        elif account is not None and account.passes and account.problem is None:
            found[name] = of_account(name, kind, account, step, weights)
        elif account is not None and account.problem:
            found[name] = account.problem
        elif seen and not any(w.tied for w in parts[id(p)]):
            found[name] = of_layers(name, kind, p, seen)
        elif not is_named(name.rpartition(".")[0], named):
            found[name] = LEFT_OUT
        else:
            reasons = [step.reason(w) for w in parts.get(id(p), beside.get(module, ()))]
            hidden = isinstance(module, nn.RNNBase | nn.RNNCellBase)
            found[name] = next(filter(None, reasons), RECURRENT if hidden else UNSEEN)
    counts = [len(g.example_sq) for g in found.values() if isinstance(g, Gradient)]
    most = max(set(counts), key=counts.count, default=0)
    for name, g in found.items():
        if isinstance(g, Gradient) and len(g.example_sq) != most:
            found[name] = f"it saw {len(g.example_sq)} examples, where most parameters saw {most}"
    return found


def owned_parameters(model: nn.Module) -> list[tuple[str, nn.Module, str, nn.Parameter]]:
    """Name, module, key and parameter; once each, as ``named_parameters``."""
    seen: set[int] = set()
    found = []
    for name, module in model.named_modules():
        for key, p in module._parameters.items():
            if p is not None and id(p) not in seen:
                seen.add(id(p))
                found.append((f"{name}.{key}".lstrip("."), module, key, p))
    return found


def of_account(
    name: str, kind: str, account: Account, step: Step, weights: Tensor | str | None
) -> Gradient | str:
    """What an account says, in the scale of the gradient over the scaler's, or why it says nothing
    in examples of these ``weights``.
    """
    count = sum(map(len, account.example_sq))
    if isinstance(weights, str):
        return weights
    if weights is not None and account.passes > 1:
        return WEIGHED
    if weights is not None and len(weights) != count:
        return f"weights= gives {len(weights)} numbers, but it has {count} examples"
    weights = None if weights is None else weights / weights.sum()
    scale = step.scale**2
    C = account.C if account.own_sq is None else account.own_sq
    assert C is not None
    return Gradient(
        name, kind, account.weight.numel(), C / scale, account.squares() / scale,
        None if account.inner is None else account.inner / scale, weights, account.weight.dtype,
    )  # fmt: skip


def check_accounts(accounts: Mapping[int, Account]) -> dict[int, str]:
    """What is wrong with accounts, by the ids of their parameters; one device synchronisation."""
    known = {i: a for i, a in accounts.items() if a.C is not None and a.passes}
    if not known:
        return {}
    first = next(iter(known.values())).C
    assert first is not None
    none = torch.zeros_like(first)
    told = [(a.C, a.own_sq, a.gap) for a in known.values()]
    pairs = [[none if t is None else t.to(none) for t in each] for each in told]
    numbers = torch.stack([torch.stack(pair) for pair in pairs]).tolist()
    least = NOTHING * sum(C for C, _, _ in numbers if math.isfinite(C))
    found = {}
    for (i, account), (C, own_sq, gap) in zip(known.items(), numbers, strict=True):
        if not math.isfinite(C):
            found[i] = NOT_FINITE
        elif max(C, own_sq) <= least:
            continue  # nothing but rounding, as the bias of keys has
        elif gap > ALIKE and account.own_sq is None:
            found[i] = OUTSIDE
        elif gap > ALIKE:
            account.note = OUTSIDE + MEASURED
    return found


def of_layers(name: str, kind: str, p: Any, layers: list[Layer]) -> Gradient | str:
    """What products say of a weight, or of the parts of it."""
    squares = [layer.example_sq for layer in layers if layer.example_sq is not None]
    if len(squares) < len(layers) or len({len(each) for each in squares}) > 1:
        return "its products were not read by example"
    inner = [layer.inner for layer in layers if layer.inner is not None]
    return Gradient(
        name, kind, p.numel(),
        torch.stack([layer.moments.C for layer in layers]).sum(),
        torch.stack(squares).sum(0),
        torch.stack(inner).sum(0) if len(inner) == len(layers) else None,
        layers[0].weights, layers[0].dtype,
    )  # fmt: skip


def kind_of_parameter(module: nn.Module, key: str) -> str:
    """What kind of parameter it is, by the module that has it."""
    name, p = type(module).__name__.lower(), module._parameters[key]
    if "norm" in name:
        return "norm"
    if "bias" in key:
        return "bias"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if isinstance(module, _ConvNd):
        return "convolution"
    if p is not None and p.ndim == 3 and "weight" not in key and "expert" in name:
        return "experts"
    return "linear" if p is not None and p.ndim == 2 and "weight" in key else "other"
