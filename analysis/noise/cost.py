"""What the noise of one update costs: of minibatches and of estimators, draw by draw."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis.noise.curvature import Batches, Curvature
from sketchvar.analysis.noise.horizon import loss_held, spectrum, stable_until
from sketchvar.analysis.noise.metric import Steps
from sketchvar.analysis.noise.objective import Objective
from sketchvar.estimators import Choice
from sketchvar.estimators.layers.convert import Patterns
from sketchvar.estimators.seeds import fold

MINIBATCH, LINEAR = "minibatch", "minibatch, linear weights"
OFTEN = 4  # draws of the minibatch for each of an estimator: its cost varies three times as much
EDGE = 0.9
DRAWN = ["noise", "rate", "seeds", "draw", "horizon", "variance", "metric", "cost"]
DRAWN += ["apart", "negative", "unstable"]
LAYERS = ["noise", "rate", "seeds", "draw", "layer", "variance", "metric", "cost"]


class Sketched(NamedTuple):
    """What linear layers take their weight gradient from, under the name and rate that tables give
    it; with ``one_seed`` all layers share the draw.
    """

    choice: Choice
    one_seed: bool = False

    @property
    def key(self) -> tuple[str, float, str]:
        """Its noise, rate and seeds in tables."""
        return self.choice.name, self.choice.rate, "one" if self.one_seed else "own"


@dataclass(frozen=True)
class Price:
    """What noise δ of a gradient costs: of the step, u = D∘δ, D the step sizes; and over horizons.

    variance ‖δ‖², metric δᵀDδ, and per horizon the loss that is left behind, by the curvature H of
    other examples than those of the noise: at T = 1 from uᵀHu itself, else by ``depth`` products
    with D^½HD^½ (``spectrum``), of ``products``. Source: ``loss_held``.

    Curvature at which steps would diverge counts as ``EDGE`` of the least such: the loss is no
    quadratic there, and training lives with it.
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
    ) -> tuple[list[float], float, float]:
        """The cost at every horizon (NaN past the first step unless ``over``), and the shares of
        the noise, in the metric, along directions in which the loss curves down, and in which steps
        would diverge.
        """
        u = self.steps.sizes * noise
        one = self.curvature.form(u, batches, seed) * float(self.held([1.0], 1)[0])
        if not over or all(horizon == 1 for horizon in self.horizons):
            found = [one if horizon == 1 else math.nan for horizon in self.horizons]
            return found, math.nan, math.nan
        root = self.steps.sizes.sqrt()

        def product(z: Tensor) -> Tensor:
            return root * self.products.product(root * z, batches, seed)

        nodes, weights = spectrum(product, root * noise, self.depth)
        shares = weights / max(weights.sum(), 1e-300)
        edge = stable_until(self.steps.momentum, self.steps.nesterov)
        known = np.minimum(nodes, EDGE * edge)
        found = [
            one if horizon == 1 else float(weights @ self.held(known, horizon))
            for horizon in self.horizons
        ]
        return found, float(shares[nodes < 0].sum()), float(shares[nodes >= edge].sum())

    def apart(self, noise: Float[Tensor, " N"], batches: Batches, seed: int) -> float:
        """The cost of one step where every tensor of weights errs for itself, as it does if its
        noise is another minibatch's: with a random sign for each, which leaves the diagonal blocks
        of H, in expectation.
        """
        g = torch.Generator().manual_seed(fold(seed, "signs"))
        blocks = self.objective.blocks.values()
        signs = (2 * torch.randint(2, (len(blocks),), generator=g) - 1).tolist()
        u = self.steps.sizes * noise
        for sign, block in zip(signs, blocks, strict=True):
            u[block] *= sign
        return self.curvature.form(u, batches, seed) * float(self.held([1.0], 1)[0])

    def layer(
        self, noise: Float[Tensor, " N"], place: slice, batches: Batches, seed: int
    ) -> tuple[float, float, float]:
        """Variance, metric and one-step cost of the noise of the weights in one ``place`` alone."""
        u = torch.zeros_like(noise)
        u[place] = self.steps.sizes[place] * noise[place]
        own = noise[place].double()
        cost = self.curvature.form(u, batches, seed) * float(self.held([1.0], 1)[0])
        return float(own.square().sum()), float(own @ u[place].double()), cost


def drawn(
    price: Price,
    batches: Iterator[Any],
    choices: Sequence[Sketched],
    draws: int,
    seed: int = 0,
    layers: bool = False,
    include: Patterns = None,
    exclude: Patterns = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``draws`` draws of every choice and ``OFTEN`` times as many of the minibatch, as rows of
    ``DRAWN``; with ``layers`` also of every linear layer by itself, as rows of ``LAYERS``.

    Each draw takes three batches: the minibatch's noise is (g_a − g_b)/√2, an estimator's Ĝ − G on
    a, in the weights of linear layers alone, and the curvature is that of c. So draws are
    independent, curvature and all. The steps are those after (g_a² + g_b²)/2 is seen, to which
    the side of the noise does not matter. ``LINEAR`` is the minibatch's noise in those weights.
    Horizons past the first step, and layers, are measured in the first ``draws``.
    """
    rows: list[tuple[Any, ...]] = []
    parts: list[tuple[Any, ...]] = []
    objective = price.objective
    linear = linear_places(objective, choices, include, exclude)
    for draw in range(OFTEN * draws):
        first, second, third = itertools.islice(batches, 3)
        full, of, own = draw < draws, fold(seed, "curvature", draw), fold(seed, "draw", draw)
        g, h = objective.gradient(first, fold(own, 0)), objective.gradient(second, fold(own, 1))
        known = (g.square() + h.square()) / 2
        for key, noise in noises(objective, g, h, first, choices if full else None, linear, own):
            priced = replace(price, steps=price.steps.after(known, noise))
            costs, *odd = priced.costs(noise, [third], of, full)
            apart = priced.apart(noise, [third], of) if full else math.nan
            square = noise.double().square()
            whole = float(square.sum()), float(square @ priced.steps.sizes.double())
            for horizon, cost in zip(price.horizons, costs, strict=True):
                rows.append((*key, draw, horizon, *whole, cost, apart, *odd))
            for name, place in linear.items() if full and layers else ():
                parts.append((*key, draw, name, *priced.layer(noise, place, [third], of)))
        if progress is not None:
            progress(draw + 1, OFTEN * draws)
    return pd.DataFrame(rows, columns=DRAWN), pd.DataFrame(parts, columns=LAYERS)


def noises(
    objective: Objective,
    g: Float[Tensor, " N"],
    h: Float[Tensor, " N"],
    first: Any,
    choices: Sequence[Sketched] | None,
    linear: Mapping[str, slice],
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
    yield (LINEAR, 1.0, "own"), only(whole, linear.values())
    for each in choices:
        with objective.sketched(each.choice.told(), fold(seed, "sketch"), each.one_seed):
            noise = objective.gradient(first, fold(seed, 0)) - g
        yield each.key, only(noise, linear.values())


def linear_places(
    objective: Objective, choices: Sequence[Sketched], include: Patterns, exclude: Patterns
) -> dict[str, slice]:
    """Layer -> where its weight is, of those that the choices' estimators can take. Raises
    ValueError where there are none.
    """
    if not choices:
        return {}
    with objective.sketched(choices[0].choice.told(), 0, False, include, exclude) as done:
        places = objective.weights_of(done.converted)
    if not places:
        raise ValueError(f"no layer of the model can be sketched:\n{done}")
    return places


def only(noise: Float[Tensor, " N"], places: Iterable[slice]) -> Float[Tensor, " N"]:
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
