"""The truth about the minibatch variance: gradients of many minibatches, the weights frozen."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from operator import length_hint
from typing import Any

import torch
from torch import Tensor, nn

from sketchvar.estimators import Measured
from sketchvar.estimators.norms import norm, wide

Loss = Callable[[nn.Module, Any], Tensor]  # (model, batch) -> a scalar


def redraw(
    model: nn.Module,
    loss: Loss,
    loader: Iterable[Any],
    draws: int,
    progress: Callable[[dict[str, Measured]], object] | None = None,
    spread: "Spread | None" = None,
) -> dict[str, Measured]:
    """The truth: the sample variance of each parameter's gradient over ``draws`` minibatches, the
    weights frozen.

    ``loader`` gives batches for ``loss(model, batch)``. Parameters have their names in
    ``named_parameters()``; those that no loss reached are missing. Afterwards gradients, buffers
    (as of batch norm) and torch's generators are what they were. Memory: two copies of the
    parameters beside the gradient. From the third draw on ``progress`` is shown what is known so
    far. ``spread`` holds the draws of an interrupted call, and ``loader`` gives the rest.

    Whatever differs between draws counts. With dropout so do the masks, as they do in
    ``by_example``, whose examples have a mask each. A sketched model adds its estimators' variance;
    where ``loader`` repeats one batch (and nothing else is random) that is all there is.

    Draws have to be independent. The batches that a shuffling loader deals in one epoch are not:
    they share no example, and vary as much as if the data had no end, so that the factor 1 − S/N
    does not show in them.

    Raises ValueError for fewer than three draws or a loader that ends early, FloatingPointError
    where a loss or a gradient is not finite.
    """
    if draws < 3:
        raise ValueError(
            f"a variance and its standard error need 3 draws or more, got draws={draws}"
        )
    spread = spread or Spread()
    with random_kept(model):
        for batch in exactly(loader, draws - spread.count):
            with unchanged(model):
                where = f"draw {spread.count}; no variance can be measured there"
                backward(loss(model, batch), where)
                spread.add(
                    {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
                )
            if broken := [
                name for name, squares in spread.squares.items() if not math.isfinite(squares[-1])
            ]:
                at = f"at draw {spread.count - 1}"
                raise FloatingPointError(
                    f"the gradient of {broken[0]} is not finite {at}, though the loss is"
                )
            if progress and spread.count > 2:
                progress(spread.variance())
    return spread.variance()


def random_kept(model: nn.Module) -> AbstractContextManager[None]:
    """A block after which torch's generators, on the CPU and on the model's GPUs, are what they
    were.
    """
    return torch.random.fork_rng(
        list({p.device for p in model.parameters() if p.device.type == "cuda"})
    )


def backward(loss: Tensor, where: str) -> float:
    """Add the gradient of ``loss`` to its model's; returns its value.

    Raises FloatingPointError, naming ``where``, for a loss that is not finite.
    """
    loss.backward()
    if not math.isfinite(value := loss.item()):
        raise FloatingPointError(f"the loss is {value} at {where}")
    return value


def exactly(loader: Iterable[Any], draws: int) -> Iterator[Any]:
    """The first ``draws`` batches. Raises ValueError where there are fewer, at once if the loader
    knows its length.
    """
    given = length_hint(loader, draws)
    if given >= draws:
        given = 0
        for batch in islice(loader, draws):
            given += 1
            yield batch
    if given < draws:
        raise ValueError(
            f"the loader gives {given} batches, not {draws}; ask for fewer draws or make it longer"
        )


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """A block in which ``model`` has no gradients yet, and after which they and all buffers are
    what they were.
    """
    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [
        (m, key, b, b if b is None else b.clone())
        for m in model.modules()
        for key, b in m._buffers.items()
    ]
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
    """Sample variances of random vectors that come draw by draw; holds a mean of each and a number
    per draw.

    Each increment (i − 1)/i · ‖gᵢ − ḡᵢ₋₁‖², where ḡᵢ₋₁ is the mean of the draws before, is an
    unbiased estimate of E‖g − Eg‖², and their average is the sample variance (Welford 1962, doi
    10.1080/00401706.1962.10490022). Its standard error is from the spread of ‖gᵢ − ḡᵢ₋₁‖²: a little
    too large for few draws, where ḡ is uncertain.
    """

    def __init__(self) -> None:
        self.count = 0
        self.means: dict[str, Tensor] = {}
        self.squares: dict[str, list[float]] = {}

    @torch.no_grad()
    def add(self, draw: Mapping[str, Tensor]) -> None:
        """One draw of every vector, by name; one that is missing is zero. One device
        synchronisation.
        """
        for name in [name for name in draw if name not in self.means]:
            self.means[name], self.squares[name] = (
                torch.zeros_like(wide(draw[name])),
                [0.0] * self.count,
            )
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
            squares = torch.tensor(
                each[1:], dtype=torch.float64
            )  # the first draw's mean before is arbitrary
            found[name] = Measured(
                (squares * (i - 1) / i).mean(), squares.std() / self.count**0.5, self.count
            )
        return found
