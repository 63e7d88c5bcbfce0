"""Rows of activations with the numbers of their examples, followed through what is done to them,
as to those that are sent to experts.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sketchvar.analysis.probe.parameters.functions import BROADCAST, BY_ROW, PICK, name_of
from sketchvar.analysis.probe.parameters.origin import Rows, rows_of
from sketchvar.analysis.probe.parameters.traced import Traced, plain, traced_in


def number(tracer: Any, t: Any) -> Any:
    """An argument, its rows numbered by example where that is known."""
    if not isinstance(t, Tensor) or not t.is_floating_point() or t.ndim < 2:
        return t
    leading = t.shape[:-1]
    unit = tracer.unit(leading)
    if unit is None or isinstance(t, Traced):
        return t
    count = unit.count(t)
    places = torch.arange(1, leading.numel() + 1, device=t.device).view(*leading, 1)
    at = rows_of(unit, places)[..., 0]  # 0 of padding
    numbers = torch.full((leading.numel() + 1,), -1, device=t.device)
    own = torch.arange(count, device=t.device)[:, None].expand_as(at)
    numbers = numbers.scatter(0, at.flatten(), own.flatten())[1:].view(leading)
    return Traced.of(t, Rows(tracer, numbers, count))


def follow(tracer: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """Run a function of rows whose examples are known."""
    out, name = func(*args, **kwargs), name_of(func)
    first = args[0] if args else None
    if not isinstance(first, Traced):
        first = next(iter(traced_in(args, kwargs)))
        if name not in BROADCAST:
            return out
    rows: Any = first.origin
    if name in PICK and first is args[0]:
        picked = rows.pick(args[-1] if name == "__getitem__" else index_of(args, kwargs))
        return Traced.of(out, picked) if picked is not None else out
    if name in ("view", "reshape", "flatten"):
        rows = Rows(tracer, rows.numbers.flatten(), rows.examples)
    elif name == "repeat_interleave" and rows.numbers.ndim == 1 and is_int(args[1:2]):
        rows = Rows(tracer, rows.numbers.repeat_interleave(args[1]), rows.examples)
    elif name not in BY_ROW:
        return out
    return number_rows(out, rows)


def number_rows(out: Any, rows: Rows) -> Any:
    """An output, or each of several, as rows of these numbers if it has as many."""
    if isinstance(out, tuple | list):
        return type(out)(number_rows(each, rows) for each in out)
    shape = rows.numbers.shape
    fits = isinstance(out, Tensor) and out.ndim > len(shape) and out.shape[: len(shape)] == shape
    return Traced.of(out, rows) if fits else out


def let_go(out: Any) -> Any:
    """Rows without their numbers."""
    return plain(out) if isinstance(out, Traced) and isinstance(out.origin, Rows) else out


def is_int(values: Sequence[Any]) -> bool:
    return len(values) == 1 and isinstance(values[0], int)


def index_of(args: Any, kwargs: Any) -> Any:
    """The index of an index_select along the first dimension; None along another."""
    given = dict(zip(("input", "dim", "index"), args, strict=False)) | kwargs
    return given["index"] if given.get("dim") == 0 else None
