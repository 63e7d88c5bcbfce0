"""What a sketched layer costs: paired ratios of forward and backward time to ``nn.Linear``, in one
process.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn

from sketchvar.analysis import meter
from sketchvar.estimators import CATALOG, SketchedLinear, choices
from sketchvar.estimators.choice import Flags

SHAPES = ((8192, 768, 3072), (8192, 768, 768), (2048, 192, 768))  # rows, p, q
RATES = (0.5, 0.1)
COLUMNS = ["device", "threads", "dtype", "rows", "p", "q", "mode", "estimator", "rate"]
COLUMNS += ["ratio", "low", "high", "theory", "kept", "allocated", "peak", "repeats"]
COLUMNS += Flags._fields


def time_layers(
    estimators: Sequence[str] = (),
    rates: Sequence[float] = RATES,
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
    repeats: int = 15,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: meter.Progress | None = None,
) -> Iterator[pd.DataFrame]:
    """The table as it grows, a row per shape (rows, p, q), estimator (all that a layer can use,
    unless named) and rate.

    ``ratio`` is the median over ``repeats`` of paired ratios to ``nn.Linear``, forward and
    backward, ``low`` and ``high`` their quartiles; the two layers of a pair run one after the
    other. Time is CPU time of the process, or on a GPU wall time between synchronisations.
    ``theory`` counts multiplications, (4 + 2·rate)/6; ``kept`` is kept bytes over the bytes of X.
    Of a step's memory, ``allocated`` is all that is asked for and ``peak`` the most at once, both
    over the plain layer's: what is made on the way shows there.
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

    for n, p, q in shapes:
        x = torch.randn(n, p, device=device, dtype=dtype, requires_grad=True)
        y = torch.randn(n, q, device=device, dtype=dtype)
        plain = nn.Linear(p, q, device=device, dtype=dtype)
        shape = (device, torch.get_num_threads(), str(dtype).removeprefix("torch."), n, p, q)
        for choice in compared:
            estimator = choice.told()
            sketched = SketchedLinear(p, q, estimator, device=device, dtype=dtype)
            ratios = meter.paired(
                partial(step, plain, x, y), partial(step, sketched, x, y), device, repeats
            )
            kept = estimator.kept_bytes(n, p, dtype) / x.nbytes
            memory = (
                measure(partial(step, sketched, x, y), device)
                / measure(partial(step, plain, x, y), device)
                for measure in (meter.allocated, meter.peak)
            )
            line = (choice.name, choice.rate, *ratios, theory(choice.rate), kept, *memory, repeats)
            rows.append((*shape, "train", *line, *choice.flags))
            yield table()
        for mode in ("eval", "no_grad"):
            first = compared[0]
            idle = SketchedLinear(p, q, first.told(), device=device, dtype=dtype)
            both = [module.train(mode == "no_grad") for module in (plain, idle)]
            with torch.set_grad_enabled(mode == "eval"):
                ratios = meter.paired(partial(both[0], x), partial(both[1], x), device, repeats)
            line = (first.name, first.rate, *ratios, *[1.0] * 4, repeats)
            rows.append((*shape, mode, *line, *first.flags))
            plain.train()
        yield table()


def theory(rate: float) -> float:
    """Multiplications of forward, input gradient and sketched weight gradient, over those of the
    plain layer.
    """
    return (4 + 2 * rate) / 6


def step(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Forward and backward as in training: gradients are made anew."""
    module.zero_grad()
    x.grad = None
    module(x).backward(y)
