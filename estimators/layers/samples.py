"""Scores by sample: within ``tell_samples`` layers that predict the rows of Y remember each sample
of the dataset.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Samples:
    """Which samples of a dataset of this ``size`` the examples of the batch are."""

    index: Tensor
    size: int


NOW: ContextVar[Samples | None] = ContextVar("samples of the batch", default=None)


@contextmanager
def tell_samples(index: Any, size: int) -> Iterator[None]:
    """Within, layers that run ``ScoredRows`` score rows by sample as well as by position: the score
    is that of the position times how large the sample's ‖y‖ was when it was last met, beside its
    batch. ``index`` (one for each example) numbers the samples of a dataset of ``size``.

        with tell_samples(batch["index"], len(dataset)):
            model(batch["x"]).sum().backward()

    A sample that was never met is as its batch. Layers whose input has another number of examples
    go by position alone. A layer keeps ``size`` numbers; the index is checked with one device
    synchronisation. Raises ValueError for an index that is not of the dataset.
    Source: Liu et al. 2023 (WTA-CRS), https://arxiv.org/abs/2305.15265, who keep norms by sample.
    """
    index = torch.as_tensor(index)
    if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(
            "tell_samples needs the number of each example in its dataset, one whole number for"
            f" each, got {index.dtype} of shape {tuple(index.shape)}"
        )
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise ValueError(
            f"the index is not of the dataset: a dataset of {size} has samples 0 to {size - 1}, got"
            f" {int(index.min())} to {int(index.max())}; number samples in the dataset, not in the"
            " batch or epoch"
        )
    token = NOW.set(Samples(index.long(), size))
    try:
        yield
    finally:
        NOW.reset(token)


def find_samples(examples: int) -> Samples | None:
    """The samples of a layer's input with so many examples, where they were told."""
    now = NOW.get()
    return now if now is not None and now.index.numel() == examples else None


def learn_samples(by_sample: Tensor, index: Tensor, row_sq: Tensor, counts: Tensor) -> Tensor:
    """Squared sizes by sample, over their batch's, after one that brought ``row_sq`` = ‖yᵢ‖²
    (examples × length), of which those count where ``counts`` is 1. What is not finite is not
    learned.
    """
    each = (row_sq * counts).sum(1) / counts.sum(1)
    now = each / (row_sq * counts).sum() * counts.sum()
    index = index.to(by_sample.device)
    return by_sample.index_copy(0, index, torch.where(now.isfinite(), now, by_sample[index]))
