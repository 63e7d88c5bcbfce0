"""RankNoise: the gradient noise scale of a model that DDP trains, from what its ranks differ by."""

import math
import warnings
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.autograd import Variable
from torch.nn.parallel import DistributedDataParallel

from sketchvar.analysis.noise.closed import over_draws
from sketchvar.analysis.probe.ranks import Ranks

COLUMNS = ["run", "step", "layer", "examples", "population", "minibatch_example", "grad_sq"]

SYNCED = (
    "gradients were averaged in several backward passes of one step, so that ranks do not differ by"
    " their own gradients: accumulate under no_sync() in all but the last; nothing was measured"
)


class RankNoise:
    """The noise of all parameters for the price of two reads of the gradient: the gradients of W
    ranks, whose average DDP takes, differ by the noise of their minibatches.

        with RankNoise(model) as noise:  # a DistributedDataParallel
            for batch in loader:
                loss(model, batch).backward()
                optimizer.step()
                optimizer.zero_grad()
                noise.step(examples=len(batch))
        noise_scale(noise.rows())

    A rank's part of G = Σ_r h_r is h_r = g_r/W, and ranks are independent: the variance of G is
    that over draws of W "examples", W/(W − 1)·(Σ‖h_r‖² − ‖G‖²/W), unbiased whatever the ranks'
    batches are. It is much noisier than a ``Probe``'s, which is that over draws of all examples: of
    two ranks one number a step. Accumulate under ``no_sync``. ``scaler`` is the GradScaler, if any;
    ``population`` and ``run`` as in ``Probe``.

    Raises TypeError for a model that DDP does not train, ValueError on a single rank.
    Source: McCandlish et al. 2018, https://arxiv.org/abs/1812.06162, appendix A.1.
    """

    def __init__(
        self,
        model: DistributedDataParallel,
        scaler: Any = None,
        population: int | None = None,
        run: str = "",
    ) -> None:
        if not isinstance(model, DistributedDataParallel):
            raise TypeError(
                "RankNoise compares the gradients of ranks before and after DDP averages them, got"
                f" {type(model).__name__}; a Probe measures any model, by example"
            )
        self.ranks = Ranks(model.process_group)
        if self.ranks.size < 2:
            raise ValueError("RankNoise compares ranks, and there is one; a Probe needs no other")
        self.model, self.scaler, self.population = model, scaler, population
        self.run, self.number = run, 0
        named = model.module.named_parameters()
        self.parameters = [(name, p) for name, p in named if p.requires_grad]
        self.lines: list[tuple[Any, ...]] = []
        self.hooks: list[Any] = []
        self.factor: Tensor | float = 1.0
        self.forget()

    def __enter__(self) -> "RankNoise":
        for _, p in self.parameters:
            self.hooks.append(p.register_post_accumulate_grad_hook(self.take))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def forget(self) -> None:
        """Begin a step."""
        self.own: dict[Tensor, Tensor] = {}
        self.mean: dict[Tensor, Tensor] = {}
        self.task, self.synced = -1, 0

    @torch.no_grad()
    def take(self, p: Tensor) -> None:
        """This rank's gradient is in ``p.grad``, and not yet averaged."""
        task = torch._C._current_graph_task_id()
        if task != self.task:
            self.task = task
            queue = Variable._execution_engine.queue_callback
            queue(lambda: queue(self.end))  # behind the callback in which DDP has averaged
        self.own[p] = norm_of(p)

    @torch.no_grad()
    def end(self) -> None:
        """A pass has ended; DDP has averaged unless it was told not to."""
        if not self.model.require_backward_grad_sync:
            return
        self.synced += 1
        if self.scaler is not None:
            self.factor = self.scaler.scale(torch.ones((), device=next(iter(self.own)).device))
        self.mean = {p: norm_of(p) for p in self.own}

    def step(self, examples: int) -> None:
        """The end of a training step, after its last backward pass; ``examples`` are this rank's.
        All ranks call it alike. Warns, once, where nothing could be measured.
        """
        found = [(name, p) for name, p in self.parameters if p in self.mean]
        synced, own, mean = self.synced, self.own, self.mean
        self.forget()
        self.number += 1
        if synced > 1:
            warnings.warn(SYNCED, stacklevel=2)
        if synced != 1 or not found:
            return
        own_sq, C = (
            torch.stack([(norms[p] / self.factor).double().square() for _, p in found])
            for norms in (own, mean)
        )
        told = self.ranks.gather([own_sq, own_sq.new_tensor([float(examples)])])
        squares = torch.stack([each for each, _ in told]).sum(0) / self.ranks.size**2
        numbers = torch.stack([over_draws(squares, C, self.ranks.size), C], 1).tolist()
        about = int(sum(count for _, count in told)), self.population or math.nan
        self.lines += [
            (self.run, self.number - 1, name, *about, *pair)
            for (name, _), pair in zip(found, numbers, strict=True)
        ]

    def rows(self) -> pd.DataFrame:
        """A row of each step and parameter, which is its ``layer``, with the columns of a
        ``Probe``'s that ``noise_scale`` reads: ``examples`` of all ranks, ``minibatch_example``,
        the variance of the averaged gradient over minibatches, and its ``grad_sq``.
        """
        return pd.DataFrame(self.lines, columns=COLUMNS)


def norm_of(p: Tensor) -> Tensor:
    """‖.grad‖, summed in float32 or wider."""
    assert p.grad is not None
    dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
    return torch.linalg.vector_norm(p.grad.detach(), dtype=dtype)
