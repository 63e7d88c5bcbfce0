"""Intercept: runs the forward of observed modules through their observer, by their class, so that
no module is changed: it can be saved, copied and pickled as before.
"""

import functools
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import nn


class Runs(Protocol):
    """What stands between a module and its forward."""

    def run(self, module: Any, plain: Any, args: Any, kwargs: Any) -> Any:
        """Do what ``plain(module, *args, **kwargs)`` does."""

    def couple(self, norm: str) -> None:
        """Something, by this name, is about to normalise over the batch."""


OBSERVED: WeakKeyDictionary[nn.Module, Runs] = WeakKeyDictionary()
PLAIN: dict[type[nn.Module], tuple[Any, Any]] = {}  # class -> its own forward, and the one put in
STANCE: list[Any] = []  # of the compiler, to be given back
NORMALIZE = torch.batch_norm  # which every BatchNorm on one device ends in, function or module


def intercept(observer: Runs, modules: dict[nn.Module, type[nn.Module]]) -> None:
    """Have each module's forward, which is that of the class given, run by ``observer``.

    While any is observed nothing runs compiled: a compiled graph knows nothing of a probe.
    """
    if not OBSERVED:
        STANCE.append(torch.compiler.set_stance("force_eager"))
        torch.batch_norm = noticing(NORMALIZE)
    for module, owner in modules.items():
        OBSERVED[module] = observer
        if owner not in PLAIN:
            PLAIN[owner] = owner.forward, dispatching(owner.forward)
            owner.forward = PLAIN[owner][1]


def release(observer: Runs) -> None:
    """Let the modules of ``observer`` run by themselves again."""
    for module in [module for module, by in OBSERVED.items() if by is observer]:
        del OBSERVED[module]
    if OBSERVED:
        return
    for owner, (plain, put_in) in PLAIN.items():
        if vars(owner).get("forward") is put_in:  # else somebody has wrapped it, and goes on
            owner.forward = plain
    PLAIN.clear()
    torch.batch_norm = NORMALIZE
    while STANCE:
        STANCE.pop().__exit__(None, None, None)


def dispatching(plain: Any) -> Any:
    """A forward that goes through the observer of a module that has one."""

    @functools.wraps(plain)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        observer = OBSERVED.get(self)
        if observer is None:
            return plain(self, *args, **kwargs)
        return observer.run(self, plain, args, kwargs)

    return forward


def noticing(plain: Any) -> Any:
    """A ``torch.batch_norm`` that says so where it normalises over the batch."""

    @functools.wraps(plain)
    def batch_norm(x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: Any, *rest: Any):  # type: ignore[no-untyped-def]
        if training:
            for observer in {id(each): each for each in OBSERVED.values()}.values():
                observer.couple("batch_norm")
        return plain(x, weight, bias, mean, var, training, *rest)

    return batch_norm
