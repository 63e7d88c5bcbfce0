"""The random steps of a layer as opaque operators, so that torch.compile neither traces nor repeats
a draw.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from sketchvar.estimators.estimator import Compressed, Estimator, kept_count
from sketchvar.estimators.seeds import fold

# A compiled graph names an estimator by its number here. Numbers are never given again; estimators
# live while a layer has them, or for good once a graph names them.
ESTIMATORS: WeakValueDictionary[int, Estimator] = WeakValueDictionary()
NUMBERS: WeakKeyDictionary[Estimator, int] = WeakKeyDictionary()
NAMED: dict[int, Estimator] = {}
NEXT = count()
PROBED = (97, 194)
SEEDS: ContextVar[Iterator[int] | None] = ContextVar("where layers take seeds from", default=None)


@contextmanager
def seeds_from(seeds: Iterator[int]) -> Iterator[None]:
    """Within, layers take their seeds from here, one a call, and torch's default generator is not
    touched: what else is random stays what it is in the plain model.

    ``itertools.repeat(seed)`` gives all layers one seed, and so coherent errors: for measuring what
    that costs, not for training.
    """
    token = SEEDS.set(seeds)
    try:
        yield
    finally:
        SEEDS.reset(token)


def number(estimator: Estimator) -> tuple[int, Estimator]:
    """The number of an estimator in this process, and the equal one that has it: hold that one."""
    if estimator not in NUMBERS:
        NUMBERS[estimator] = place = next(NEXT)
        ESTIMATORS[place] = estimator
    place = NUMBERS[estimator]
    return place, ESTIMATORS[place]


def numbered(handle: int) -> Estimator:
    """The estimator of a number that a compiled graph names; it is not forgotten any more."""
    if handle not in NAMED:
        NAMED[handle] = ESTIMATORS[handle]
    return NAMED[handle]


def next_seed() -> int:
    """A seed from torch's default generator, as Dropout takes its own: reproducible by
    torch.manual_seed, restored by checkpointing. Ranks of a process group draw differently even
    from equal generator states.
    """
    given = SEEDS.get()
    if given is not None:
        return next(given)
    seed = int(torch.randint(2**63 - 1, (), device="cpu"))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        seed = fold(seed, "rank", torch.distributed.get_rank())
    return seed


@torch.library.custom_op("sketchvar::compress", mutates_args=())
def compress(x: Tensor, handle: int) -> list[Tensor]:
    """``next_seed()`` and the payload of the numbered estimator's ``compress`` with it.

    One operator does both, so that a compiler which moves it to the backward pass cannot part a
    seed from its payload.
    It is not marked as random, so that equal calls are merged: layers that read one X share one
    compressed copy.
    """
    seed = next_seed()
    return [torch.tensor(seed, device="cpu"), *numbered(handle).compress(x, seed).tensors]


@compress.register_fake
def _(x: Tensor, handle: int) -> list[Tensor]:
    n, p = x.shape
    known = {"n": n, "k": kept_count(rate_of(numbered(handle)), n)}

    def size(dimension: int | str) -> Any:
        if isinstance(dimension, int):
            return dimension
        return (
            known[dimension] if dimension in known else torch.library.get_ctx().new_dynamic_size()
        )

    seed = torch.empty((), dtype=torch.int64, device="cpu")
    form = payload_form(handle, int(p), x.dtype)  # p is the weight's: one value
    return [
        seed,
        *(x.new_empty([size(d) for d in dimensions], dtype=dtype) for dimensions, dtype in form),
    ]


@cache
def payload_form(
    handle: int, p: int, dtype: torch.dtype
) -> tuple[tuple[tuple[int | str, ...], torch.dtype], ...]:
    """Shapes and dtypes of a payload for any n, from two small inputs: a dimension is a number,
    "n", "k" or "?".

    A compiler that knows the shapes as functions of n compiles once for every n; drawing
    symbolically would not.
    """
    estimator = numbered(handle)
    with _disable_current_modes():
        few, many = (estimator.compress(torch.ones(n, p, dtype=dtype), 0).tensors for n in PROBED)
    kept = tuple(kept_count(rate_of(estimator), n) for n in PROBED)
    form = []
    for a, b in zip(few, many, strict=True):
        dims: list[int | str] = []
        for pair in zip(a.shape, b.shape, strict=True):
            same = pair[0] if pair[0] == pair[1] else "?"
            dims.append({PROBED: "n", kept: "k"}.get(pair, same))
        if estimator.traits.varying_size:
            dims[0] = "?"
        form.append((tuple(dims), a.dtype))
    return tuple(form)


def rate_of(estimator: Estimator) -> float:
    """The rate of an estimator, or of the one it is made of; 1 where there is none."""
    inner = (value for value in vars(estimator).values() if isinstance(value, Estimator))
    return getattr(estimator, "rate", None) or max(
        (rate_of(e) for e in list(inner)[:1]), default=1.0
    )


def row_bytes(handle: int, p: int, dtype: torch.dtype) -> float:
    """What the estimator keeps per row of a large X: a constant, where its ``kept_bytes`` would
    have to be traced.
    """
    return numbered(handle).kept_bytes(2**16, p, dtype) / 2**16


# as torch.compiler.assume_constant_result does, which loads Dynamo, also for who never compiles
row_bytes._dynamo_marked_constant = True  # type: ignore[attr-defined]


@torch.library.custom_op("sketchvar::contract", mutates_args=())
def contract(payload: list[Tensor], y: Tensor, seed: Tensor, handle: int, n: int, p: int) -> Tensor:
    """The numbered estimator's ``contract``, laid out in memory as its transpose is: the layout of
    a layer's weight.
    """
    g = numbered(handle).contract(Compressed(int(seed), (n, p), tuple(payload)), y)
    return g.T.contiguous().T


@contract.register_fake
def _(payload: list[Tensor], y: Tensor, seed: Tensor, handle: int, n: int, p: int) -> Tensor:
    return y.new_empty(y.shape[1], p).T
