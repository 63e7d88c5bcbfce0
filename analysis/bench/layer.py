"""What a sketched layer costs: paired ratios of forward and backward time to ``nn.Linear``, in one
process.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from sketchvar.analysis import meter
from sketchvar.analysis.bench.traffic import count_traffic
from sketchvar.estimators import CATALOG, Choice, choices, sketch_linears
from sketchvar.estimators.choice import Flags

# rows, p, q; of a convolution images, channels, side of an image, outputs, side of the kernel
SHAPES = ((8192, 768, 3072), (8192, 768, 768), (2048, 192, 768), (64, 64, 16, 128, 3))
RATES = (0.5, 0.1)
COLUMNS = ["device", "threads", "dtype", "rows", "p", "q", "kernel", "mode", "estimator", "rate"]
COLUMNS += ["ratio", "low", "high", "theory", "kept", "allocated", "peak"]
COLUMNS += ["allocations", "passes", "numbers", "repeats"]
COLUMNS += Flags._fields


def time_layers(
    estimators: Sequence[str] = (),
    rates: Sequence[float] = RATES,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    repeats: int = 15,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: meter.Progress | None = None,
) -> Iterator[pd.DataFrame]:
    """The table as it grows, a row per shape (of three numbers, or of a convolution's five), per
    estimator (all that a layer can use, unless named) and rate.

    ``ratio`` is the median over ``repeats`` of paired ratios to ``nn.Linear``, forward and
    backward, ``low`` and ``high`` their quartiles; the two layers of a pair run one after the
    other. Time is CPU time of the process, or on a GPU wall time between synchronisations.
    ``theory`` counts multiplications, (4 + 2·rate)/6; ``kept`` is kept bytes over those of the
    layer's input. Of a step's memory, ``allocated`` is all that is asked for and ``peak`` the most
    at once, both over the plain layer's: what is made on the way shows there.
    What a step does more than the plain layer's: ``allocations`` counts requests for memory,
    ``passes`` reads and writes beside the products, in sizes of the input, and ``numbers`` random
    numbers for one of X; on a GPU the latter two are NaN, as kernels are not seen.
    The rows of mode "eval" and "no_grad" time the forward of one sketched layer in those modes.
    ``progress`` is called after every row.
    """
    compared = choices(list(estimators) or CATALOG, rates)
    if not estimators:
        compared = [choice for choice in compared if not choice.oracle and choice.name != "exact"]
    rows: list[tuple[Any, ...]] = []

    def table() -> pd.DataFrame:
        if progress is not None:
            progress(len(rows), len(shapes) * (len(compared) + 2))
        return pd.DataFrame(rows, columns=COLUMNS)

    for shape in shapes:
        plain, x, y = make_layer(shape, device, dtype)
        n, p, q, kernel = count_shape(shape)
        about = (
            device,
            torch.get_num_threads(),
            str(dtype).removeprefix("torch."),
            n,
            p,
            q,
            kernel,
        )
        before = profile(partial(step, plain, x, y), device)
        for choice in compared:
            sketched = sketch(plain, choice)
            both = partial(step, plain, x, y), partial(step, sketched, x, y)
            ratios = meter.paired(*both, device, repeats)
            kept = choice.told().kept_bytes(n, p, dtype) / x.nbytes
            after = profile(both[1], device)
            memory = (after.allocated / before.allocated, after.peak / before.peak)
            more = (
                after.allocations - before.allocations,
                (after.moved - before.moved) / x.nbytes,
                (after.numbers - before.numbers) / (n * p),
            )
            line = (choice.name, choice.rate, *ratios, theory(choice.rate), kept, *memory, *more)
            rows.append((*about, "train", *line, repeats, *choice.flags))
            yield table()
        for mode in ("eval", "no_grad"):
            first = compared[0]
            idle = sketch(plain, first)
            plain_run, run = (partial(m.train(mode == "no_grad"), x) for m in (plain, idle))
            with torch.set_grad_enabled(mode == "eval"):
                ratios = meter.paired(plain_run, run, device, repeats)
            same = [*[1.0] * 4, *[0.0] * 3]
            rows.append(
                (*about, mode, first.name, first.rate, *ratios, *same, repeats, *first.flags)
            )
            plain.train()
        yield table()


class Profile(NamedTuple):
    """What a step asks for: bytes of memory, the most at once, in so many requests; bytes that are
    read and written beside the products, and random numbers.
    """

    allocated: float
    peak: float
    allocations: float
    moved: float
    numbers: float


def profile(work: meter.Work, device: str) -> Profile:
    """Count what ``work`` asks for."""
    memory = (meter.allocated(work, device), meter.peak(work, device))
    if meter.on_gpu(device):
        return Profile(*memory, meter.allocations(work, device), math.nan, math.nan)
    seen = count_traffic(work)
    return Profile(*memory, meter.allocations(work, device), seen.bytes, seen.numbers)


def make_layer(
    shape: Sequence[int], device: str, dtype: torch.dtype
) -> tuple[nn.Module, Tensor, Tensor]:
    """The plain layer of a shape, an input that takes a gradient, and a gradient of the output."""
    where: dict[str, Any] = {"device": device, "dtype": dtype}
    if len(shape) == 3:
        n, p, q = shape
        x, y = torch.randn(n, p, **where), torch.randn(n, q, **where)
        return nn.Linear(p, q, **where), x.requires_grad_(), y
    images, channels, side, outputs, kernel = shape
    x = torch.randn(images, channels, side, side, **where)
    plain = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, **where)
    return plain, x.requires_grad_(), torch.randn_like(plain(x))


def count_shape(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Rows and features of X, features of Y, and the side of the kernel, 1 of ``nn.Linear``."""
    if len(shape) == 3:
        n, p, q = shape
        return n, p, q, 1
    images, channels, side, outputs, kernel = shape
    out = side + 2 * (kernel // 2) - kernel + 1
    return images * out**2, channels * kernel**2, outputs, kernel


def sketch(plain: nn.Module, choice: Choice) -> nn.Module:
    """The same layer under an estimator."""
    whole = nn.Sequential(copy.deepcopy(plain))
    sketch_linears(whole, choice.told())
    return whole[0]


def theory(rate: float) -> float:
    """Multiplications of forward, input gradient and sketched weight gradient, over those of the
    plain layer.
    """
    return (4 + 2 * rate) / 6


def step(module: nn.Module, x: Tensor, y: Tensor) -> None:
    """Forward and backward as in training: gradients are made anew."""
    module.zero_grad()
    x.grad = None
    module(x).backward(y)
