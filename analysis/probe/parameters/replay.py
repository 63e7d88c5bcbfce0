"""Replay: a function of examples run again for each of them alone, as every function can be."""

from typing import Any

import torch
from torch import Tensor, nn

from sketchvar.analysis.probe.parameters.functions import name_of

BUDGET = 2**24  # numbers formed at a time
UNKNOWN = "{} takes it, and how that divides into examples is not known"


def replay(tracer: Any, func: Any, args: Any, kwargs: Any, shared: Any) -> Any:
    """Run ``func``, and in the backward pass again for each example, differentiated by what is
    ``shared``: a convolution, a bilinear form, or whatever else gives an output for each example
    of its own inputs alone, along their first dimension.
    """
    flat = [*args, *kwargs.values()]
    places = [i for i, t in enumerate(flat) if any(t is each for each in shared)]
    out = func(*args, **kwargs)
    count = tracer.ledger.count_in(out)
    mapped = [
        i
        for i, t in enumerate(flat)
        if isinstance(t, Tensor)
        and not isinstance(t, nn.Parameter)
        and i not in places
        and t.ndim
        and t.shape[0] == count
    ]
    if count is None or not mapped or len(places) < len(shared):
        for t in shared:
            tracer.fail(t, UNKNOWN.format(name_of(func)))
        return out
    keys = [None] * len(args) + list(kwargs)
    weights = [flat[i] for i in places]
    kept = [tracer.keep(flat[i]) for i in mapped]
    fixed = [None if i in places or i in mapped else each for i, each in enumerate(flat)]

    def run(given: Any, inputs: Any) -> Tensor:
        values = list(fixed)
        for i, w in zip(places, given, strict=True):
            values[i] = w
        for i, x in zip(mapped, inputs, strict=True):
            values[i] = x[None]
        named = {key: v for key, v in zip(keys, values, strict=True) if key is not None}
        return func(*values[: len(args)], **named)[0]

    def take(y: Tensor) -> None:
        inputs = [held() for held in kept]
        plain = [w.detach().as_subclass(Tensor) for w in weights]

        def one(g: Tensor, *x: Tensor) -> Any:
            return torch.func.vjp(lambda *w: run(w, x), *plain)[1](g)

        size = max(1, BUDGET // max(1, sum(w.numel() for w in plain)))
        each: Any = [w.new_zeros(0, *w.shape) for w in plain]
        if len(y):
            each = torch.func.vmap(one, chunk_size=size)(y, *inputs)
        for w, g in zip(weights, each, strict=True):
            w.origin.pull_back(w, g)

    tracer.read(out, [root for w in weights for root in w.origin.roots], take)
    return out
