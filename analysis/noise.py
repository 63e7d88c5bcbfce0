"""Minibatch variance of the gradient: by row and by example from one minibatch, and by redrawing many."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from operator import length_hint
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from estimators import Measured, Moments
from estimators.moments import norm, wide

Loss = Callable[[nn.Module, Any], Tensor]  # (model, batch) -> a scalar


def by_row(m: Moments, rows: int | None = None) -> Float[Tensor, ""]:
    """Variance of G over the draw of its n rows, were they independent: (nD − C) / (n − 1). NaN for a single row.

    ``rows`` is n where some rows are padding, which nobody draws; all of them unless given.
    Source: Bershatsky et al. 2022, https://arxiv.org/abs/2201.13195, eq. for D²_SGD.
    """
    n = m.n if rows is None else rows
    return (n * m.D - m.C) / (n - 1) if n > 1 else torch.full_like(m.D, torch.nan)


def by_example(example_sq: Float[Tensor, " S"], C: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Unbiased variance of G over the draw of its S examples: S/(S − 1) Σ‖g_s‖² − C/(S − 1). NaN for one example.

    ``example_sq`` holds ‖g_s‖² with g_s = X_sᵀY_s the example's part of G, in the scale of G: where the loss is a
    mean, each g_s carries its 1/S, and the result is the variance of the mean gradient.
    """
    s = example_sq.shape[0]
    return (s * example_sq.sum() - C) / (s - 1) if s > 1 else torch.full_like(C, torch.nan)


def example_sq(x: Float[Tensor, "S T p"], y: Float[Tensor, "S T q"], budget: int | None = None) -> Float[Tensor, " S"]:
    """‖X_sᵀY_s‖²_F for each of S examples of T rows, in float64, in the cheaper of two ways.

    Short examples: ⟨X_sX_sᵀ, Y_sY_sᵀ⟩, at T²(p + q) operations; long ones: the product itself, at Tpq. Temporary
    memory stays below ``budget`` numbers (a quarter of X and Y, or 2¹⁸, unless given), by going through the examples in
    chunks.
    """
    t, p, q = *x.shape[1:], y.shape[-1]
    gram = t * (p + q) < p * q
    each = 2 * t * t if gram else p * q
    chunk = max(1, (budget or max(2**18, (x.numel() + y.numel()) // 4)) // each)
    parts = [x.new_zeros(0, dtype=torch.float64)]
    for a, b in zip(wide(x).split(chunk), wide(y).split(chunk), strict=True):
        if gram:
            parts.append((a @ a.mT).mul_(b @ b.mT).sum((1, 2), dtype=torch.float64))
        else:
            parts.append(norm(a.mT @ b, dim=(1, 2)).double().square())
    return torch.cat(parts)


def redraw(
    model: nn.Module,
    loss: Loss,
    loader: Iterable[Any],
    draws: int,
    progress: Callable[[dict[str, Measured]], object] | None = None,
    spread: "Spread | None" = None,
) -> dict[str, Measured]:
    """The truth: the sample variance of each parameter's gradient over ``draws`` minibatches, the weights frozen.

    ``loader`` gives batches for ``loss(model, batch)``. Parameters have their names in ``named_parameters()``; those
    that no loss reached are missing. Afterwards gradients, buffers (as of batch norm) and torch's generators are what
    they were. Memory: two copies of the parameters beside the gradient. From the third draw on ``progress`` is shown
    what is known so far. ``spread`` holds the draws of an interrupted call, and ``loader`` gives the rest.

    Whatever differs between draws counts. With dropout so do the masks, as they do in ``by_example``, whose examples
    have a mask each. A sketched model adds its estimators' variance; where ``loader`` repeats one batch (and nothing
    else is random) that is all there is.

    Draws have to be independent. The batches that a shuffling loader deals in one epoch are not: they share no
    example, and vary as much as if the data had no end, so that the factor 1 − S/N does not show in them.

    Raises ValueError for fewer than three draws or a loader that ends early, FloatingPointError where a loss or a
    gradient is not finite.
    """
    if draws < 3:
        raise ValueError(f"a variance and its standard error need 3 draws or more, got draws={draws}")
    spread = spread or Spread()
    with random_kept(model):
        for batch in exactly(loader, draws - spread.count):
            with unchanged(model):
                backward(model, loss, batch, spread.count)
                spread.add({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
            if broken := [name for name, squares in spread.squares.items() if not math.isfinite(squares[-1])]:
                at = f"at draw {spread.count - 1}"
                raise FloatingPointError(f"the gradient of {broken[0]} is not finite {at}, though the loss is")
            if progress and spread.count > 2:
                progress(spread.variance())
    return spread.variance()


def random_kept(model: nn.Module) -> AbstractContextManager[None]:
    """A block after which torch's generators, on the CPU and on the model's GPUs, are what they were."""
    return torch.random.fork_rng(list({p.device for p in model.parameters() if p.device.type == "cuda"}))


def backward(model: nn.Module, loss: Loss, batch: Any, draw: int) -> None:
    """One forward and backward pass. Raises FloatingPointError for a loss that is not finite."""
    value = loss(model, batch)
    if not value.isfinite():
        raise FloatingPointError(f"the loss is {value.item()} at draw {draw}; no variance can be measured there")
    value.backward()


def exactly(loader: Iterable[Any], draws: int) -> Iterator[Any]:
    """The first ``draws`` batches. Raises ValueError where there are fewer, at once if the loader knows its length."""
    given = length_hint(loader, draws)
    if given >= draws:
        given = 0
        for batch in islice(loader, draws):
            given += 1
            yield batch
    if given < draws:
        raise ValueError(f"the loader gives {given} batches, not {draws}; ask for fewer draws or make it longer")


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """A block in which ``model`` has no gradients yet, and after which they and all buffers are what they were."""
    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [(m, key, b, b if b is None else b.clone()) for m in model.modules() for key, b in m._buffers.items()]
    for p, _ in gradients:
        p.grad = None
    try:
        yield
    finally:
        for p, gradient in gradients:
            p.grad = gradient
        for module, key, buffer, before in buffers:
            module._buffers[key] = buffer
            if buffer is not None and before is not None:
                buffer.detach().copy_(before)


class Spread:
    """Sample variances of random vectors that come draw by draw; holds a mean of each and a number per draw.

    Each increment (i − 1)/i · ‖gᵢ − ḡᵢ₋₁‖², where ḡᵢ₋₁ is the mean of the draws before, is an unbiased estimate of
    E‖g − Eg‖², and their average is the sample variance (Welford 1962, doi 10.1080/00401706.1962.10490022). Its
    standard error is from the spread of ‖gᵢ − ḡᵢ₋₁‖²: a little too large for few draws, where ḡ is uncertain.
    """

    def __init__(self) -> None:
        self.count = 0
        self.means: dict[str, Tensor] = {}
        self.squares: dict[str, list[float]] = {}

    @torch.no_grad()
    def add(self, draw: Mapping[str, Tensor]) -> None:
        """One draw of every vector, by name; one that is missing is zero. One device synchronisation."""
        for name in [name for name in draw if name not in self.means]:
            self.means[name], self.squares[name] = torch.zeros_like(wide(draw[name])), [0.0] * self.count
        squares = []
        for name, mean in self.means.items():
            gap = draw[name] - mean if name in draw else -mean
            squares.append(norm(gap).double().square())
            mean.add_(gap, alpha=1 / (self.count + 1))
        for each, square in zip(self.squares.values(), torch.stack(squares).tolist(), strict=True):
            each.append(square)
        self.count += 1

    def variance(self) -> dict[str, Measured]:
        """The variance of every vector after three draws or more."""
        i = torch.arange(2, self.count + 1, dtype=torch.float64)
        found = {}
        for name, each in self.squares.items():
            squares = torch.tensor(each[1:], dtype=torch.float64)  # the first draw's mean before is arbitrary
            found[name] = Measured((squares * (i - 1) / i).mean(), squares.std() / self.count**0.5, self.count)
        return found
