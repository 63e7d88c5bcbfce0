"""What the noise of one update costs: of minibatches and of estimators, draw by draw."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis.noise.curvature import Batches, Curvature
from sketchvar.analysis.noise.horizon import loss_held, spectrum
from sketchvar.analysis.noise.metric import Steps
from sketchvar.analysis.noise.objective import Objective
from sketchvar.estimators import Estimator
from sketchvar.estimators.layers.convert import Patterns
from sketchvar.estimators.seeds import fold

MINIBATCH, LINEAR = "minibatch", "minibatch, linear weights"
OFTEN = 4  # draws of the minibatch for each of an estimator: its cost varies three times as much
DRAWN = ["noise", "rate", "seeds", "draw", "horizon", "variance", "metric", "cost", "negative"]
BLOCKS = ["noise", "rate", "seeds", "draw", "layer", "variance", "metric", "cost"]


class Choice(NamedTuple):
    """An estimator under its name, without the rate where it takes one; ``one_seed`` gives all
    layers the same draw.
    """

    name: str
    rate: float
    estimator: Estimator
    one_seed: bool = False


@dataclass(frozen=True)
class Price:
    """What noise δ of a gradient costs: of the step, u = D∘δ, D the step sizes; and over horizons.

    variance ‖δ‖², metric δᵀDδ, and per horizon the loss that is left behind, by the curvature H of
    other examples than those of the noise: at T = 1 from uᵀHu itself, else by ``depth`` products
    with D^½HD^½ (``spectrum``), of ``products``. Source: ``loss_held``.
    """

    objective: Objective
    curvature: Curvature
    products: Curvature
    steps: Steps
    horizons: tuple[float, ...] = (1,)
    schedule: tuple[float, ...] = ()
    depth: int = 16

    def held(self, curvatures: Any, horizon: float) -> Any:
        s = self.steps
        return loss_held(curvatures, horizon, s.momentum, s.nesterov, self.schedule)

    def costs(
        self, noise: Float[Tensor, " N"], batches: Batches, seed: int, over: bool
    ) -> tuple[list[float], float]:
        """The cost at every horizon (NaN past the first step unless ``over``), and the share of the
        noise, in the metric, along directions in which the loss curves down.
        """
        u = self.steps.sizes * noise
        one = self.curvature.form(u, batches, seed) * float(self.held([1.0], 1)[0])
        if not over or all(horizon == 1 for horizon in self.horizons):
            return [one if horizon == 1 else math.nan for horizon in self.horizons], math.nan
        root = self.steps.sizes.sqrt()

        def product(z: Tensor) -> Tensor:
            return root * self.products.product(root * z, batches, seed)

        nodes, weights = spectrum(product, root * noise, self.depth)
        negative = float(weights[nodes < 0].sum() / max(weights.sum(), 1e-300))
        return [
            one if horizon == 1 else float(weights @ self.held(nodes, horizon))
            for horizon in self.horizons
        ], negative

    def blocks(
        self, noise: Float[Tensor, " N"], batches: Batches, seed: int
    ) -> dict[str, tuple[float, float, float]]:
        """Variance, metric and one-step cost of every tensor of weights, of its own diagonal block
        of H.

        All in one product: with a random sign for every tensor, s_b u_bᵀ(H(s∘u))_b is unbiased for
        u_bᵀH_bb u_b. Their sum is the cost that is left where tensors do not err together.
        """
        objective = self.objective
        u = self.steps.sizes * noise
        g = torch.Generator().manual_seed(fold(seed, "signs"))
        signs = (2 * torch.randint(2, (len(objective.blocks),), generator=g) - 1).tolist()
        apart = torch.empty_like(u)
        for sign, block in zip(signs, objective.blocks.values(), strict=True):
            apart[block] = sign * u[block]
        curved = apart * self.products.product(apart, batches, seed)
        scale = float(self.held([1.0], 1)[0])
        return {
            name: (
                float(noise[b].double().square().sum()),
                float((noise[b].double() * u[b].double()).sum()),
                scale * float(curved[b].double().sum()),
            )
            for name, b in objective.blocks.items()
        }


def drawn(
    price: Price,
    batches: Iterator[Any],
    choices: Sequence[Choice],
    draws: int,
    seed: int = 0,
    layers: bool = True,
    include: Patterns = None,
    exclude: Patterns = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``draws`` draws of every choice and ``OFTEN`` times as many of the minibatch, as rows of
    ``DRAWN``; and of each tensor of weights, unless ``layers`` is false, as rows of ``BLOCKS``.

    Each draw takes three batches: the minibatch's noise is (g_a − g_b)/√2, an estimator's Ĝ − G on
    a, in the weights of linear layers alone, and the curvature is that of c. So draws are
    independent, curvature and all. The steps are those after (g_a² + g_b²)/2 is seen, to which
    the side of the noise does not matter. ``LINEAR`` is the minibatch's noise in those weights.
    Horizons past the first step, and layers, are measured in the first ``draws``.
    """
    rows: list[tuple[Any, ...]] = []
    blocks: list[tuple[Any, ...]] = []
    objective, linear = price.objective, linear_places(price.objective, choices, include, exclude)
    for draw in range(OFTEN * draws):
        first, second, third = itertools.islice(batches, 3)
        full, of, own = draw < draws, fold(seed, "curvature", draw), fold(seed, "draw", draw)
        g, h = objective.gradient(first, fold(own, 0)), objective.gradient(second, fold(own, 1))
        known = (g.square() + h.square()) / 2
        for key, noise in noises(objective, g, h, first, choices if full else None, linear, own):
            priced = replace(price, steps=price.steps.after(known, noise))
            costs, negative = priced.costs(noise, [third], of, full)
            square = noise.double().square()
            whole = float(square.sum()), float(square @ priced.steps.sizes.double())
            for horizon, cost in zip(price.horizons, costs, strict=True):
                rows.append((*key, draw, horizon, *whole, cost, negative))
            if full and layers:
                parts = priced.blocks(noise, [third], of)
                blocks += [(*key, draw, name, *part) for name, part in parts.items()]
        if progress is not None:
            progress(draw + 1, OFTEN * draws)
    return pd.DataFrame(rows, columns=DRAWN), pd.DataFrame(blocks, columns=BLOCKS)


def noises(
    objective: Objective,
    g: Float[Tensor, " N"],
    h: Float[Tensor, " N"],
    first: Any,
    choices: Sequence[Choice] | None,
    linear: Sequence[slice],
    seed: int,
) -> Iterator[tuple[tuple[str, float, str], Float[Tensor, " N"]]]:
    """One draw of the minibatch's noise, by (noise, rate, seeds), from the gradients of two
    batches; with ``choices`` also of that in the ``linear`` weights alone and of every choice, on
    the ``first`` batch.
    """
    whole = (g - h) / 2**0.5
    yield (MINIBATCH, 1.0, "own"), whole
    if choices is None:
        return
    yield (LINEAR, 1.0, "own"), only(whole, linear)
    for name, rate, estimator, one_seed in choices:
        with objective.sketched(estimator, fold(seed, "sketch"), one_seed):
            noise = objective.gradient(first, fold(seed, 0)) - g
        yield (name, rate, "one" if one_seed else "own"), only(noise, linear)


def linear_places(
    objective: Objective, choices: Sequence[Choice], include: Patterns, exclude: Patterns
) -> list[slice]:
    """Where the weights are that the choices' estimators can take. Raises ValueError where there
    are none.
    """
    if not choices:
        return []
    with objective.sketched(choices[0].estimator, 0, False, include, exclude) as done:
        places = list(objective.weights_of(done.converted).values())
    if not places:
        raise ValueError(f"no layer of the model can be sketched:\n{done}")
    return places


def only(noise: Float[Tensor, " N"], places: Sequence[slice]) -> Float[Tensor, " N"]:
    """The same noise in these places and nowhere else: what is exact differs by rounding only."""
    kept = torch.zeros_like(noise)
    for place in places:
        kept[place] = noise[place]
    return kept


def endless(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, from the start again where they end. Raises ValueError for fewer than three,
    and for an iterator that ends.
    """
    while True:
        count = 0
        for batch in batches:
            count += 1
            yield batch
        if count < 3:
            raise ValueError(
                f"a draw needs 3 batches, got {count}; give a list or a loader of more, which can"
                " be gone through again"
            )
