"""Drawing: one draw of the noise of a minibatch and of estimators, and what measures it."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis.noise.curvature import Batches, Curvature
from sketchvar.analysis.noise.inner import inner
from sketchvar.analysis.noise.lanczos import spectrum
from sketchvar.analysis.noise.metric import Steps
from sketchvar.analysis.noise.objective import Objective
from sketchvar.estimators import Choice
from sketchvar.estimators.seeds import fold

MINIBATCH, LINEAR = "minibatch", "minibatch, linear weights"
MEAN = "mean of the gradients"  # of all draws: the gradient, and a little of the noise
NOT_ONE = (MINIBATCH, LINEAR, MEAN)  # no estimator's
ENOUGH = 4  # draws below which a standard error says nothing
Key = tuple[str, float, str]


class Sketched(NamedTuple):
    """What linear layers take their weight gradient from, under the name and rate that tables give
    it; with ``one_seed`` all layers share the draw.
    """

    choice: Choice
    one_seed: bool = False

    @property
    def key(self) -> Key:
        """Its noise, rate and seeds in tables."""
        return self.choice.name, self.choice.rate, "one" if self.one_seed else "own"


@dataclass(frozen=True)
class Ruler:
    """What noise δ of a gradient is measured by: the step sizes D, and the curvature H of other
    examples than those of the noise. The noise of the update is u = D∘δ.

    ``curvature`` gives single forms uᵀHu, ``products`` multiplies by H where a spectrum is asked
    for, ``nodes`` times.
    """

    objective: Objective
    curvature: Curvature
    products: Curvature
    steps: Steps
    nodes: int = 16

    def form(self, noise: Float[Tensor, " N"], batches: Batches, seed: int) -> float:
        """uᵀHu."""
        return self.curvature.form(self.steps.sizes * noise, batches, seed)

    def apart(self, noise: Float[Tensor, " N"], batches: Batches, seed: int) -> float:
        """The same where every tensor of weights errs for itself, as it does if its noise is
        another minibatch's: with a random sign for each, which leaves the diagonal blocks of H, in
        expectation.
        """
        g = torch.Generator().manual_seed(fold(seed, "signs"))
        blocks = self.objective.blocks.values()
        signs = (2 * torch.randint(2, (len(blocks),), generator=g) - 1).tolist()
        turned = noise.clone()
        for sign, block in zip(signs, blocks, strict=True):
            turned[block] *= sign
        return self.form(turned, batches, seed)

    def metric(self, noise: Float[Tensor, " N"], place: slice = slice(None)) -> float:
        """δᵀDδ, of what the noise has in one place."""
        return inner(noise[place], self.steps.sizes[place] * noise[place])

    def spectrum(
        self, noise: Float[Tensor, " N"], batches: Batches, seed: int
    ) -> list[tuple[float, float]]:
        """How D^½δ spreads over the curvature D^½HD^½: (node, weight) pairs."""
        root = self.steps.sizes.sqrt()

        def product(z: Tensor) -> Tensor:
            return root * self.products.product(root * z, batches, seed)

        nodes, weights = spectrum(product, root * noise, self.nodes)
        return list(zip(nodes.tolist(), weights.tolist(), strict=True))


class Signal(NamedTuple):
    """What one draw tells of the gradient: its mean over the two batches, (g_a² + g_b²)/2, and the
    squares of every noise.
    """

    mean: Tensor
    squares: Tensor
    power: dict[Key, Tensor]


class OneDraw(NamedTuple):
    """Rows of ``Draws`` that one draw gives, and its signal."""

    totals: list[tuple[Any, ...]]
    spectra: list[tuple[Any, ...]]
    layers: list[tuple[Any, ...]]
    ways: list[tuple[Any, ...]]
    signal: Signal | None


@dataclass(frozen=True)
class Drawing:
    """What every draw is made by: see ``draw_noise``."""

    ruler: Ruler
    choices: tuple[Sketched, ...]
    linear: Mapping[str, slice]
    draws: int
    spectra: int
    coherent: int
    seed: int
    layers: bool
    signal: bool
    every: bool  # whether ``apart`` is of every estimator, and not of what is for coherence alone
    ways: Mapping[str, Curvature]  # others to measure single forms by

    def draw(self, draw: int, first: Any, second: Any, others: list[Any]) -> OneDraw:
        """One of the minibatch, and of every choice where it is among the first."""
        ruler, seed = self.ruler, self.seed
        of, at = fold(seed, "curvature", draw), fold(seed, "draw", draw)
        full, together = draw < self.draws, draw < self.coherent
        g = ruler.objective.gradient(first, fold(at, 0))
        h = ruler.objective.gradient(second, fold(at, 1))
        known = (g.square() + h.square()) / 2
        totals, spread, parts, power, ways = [], [], [], {}, []
        choices = [each for each in self.choices if full and (together or not each.one_seed)]
        for key, noise in noises(ruler.objective, g, h, first, choices, self.linear, at):
            alone = key[0] == LINEAR or key[2] == "one"  # measured for coherence alone
            if alone and not together:
                continue
            here = replace(ruler, steps=ruler.steps.after(known, noise))
            if self.signal and not alone:
                power[key] = noise.square()
            if draw < self.spectra and not alone:
                spread += [(*key, draw, *pair) for pair in here.spectrum(noise, others, of)]
            form = here.form(noise, others, of)
            wanted = together and (self.every or alone or key[0] == MINIBATCH)
            apart = here.apart(noise, others, of) if wanted else math.nan
            variance = inner(noise, noise)
            totals.append((*key, draw, variance, here.metric(noise), form, apart))
            for name, way in self.ways.items() if full and key[2] == "own" else ():
                ways.append(
                    (*key, draw, name, replace(here, curvature=way).form(noise, others, of))
                )
            for name, place in self.linear.items() if full and self.layers else ():
                variance = inner(noise[place], noise[place])
                form = here.form(only(noise, [place]), others, of)
                parts.append((*key, draw, name, variance, here.metric(noise, place), form))
        signal = Signal((g + h) / 2, known, power) if self.signal else None
        return OneDraw(totals, spread, parts, ways, signal)

    def spread_mean(
        self, draw: int, mean: Tensor, squares: Tensor, others: list[Any]
    ) -> list[tuple[Any, ...]]:
        """How the mean of all gradients spreads over the curvature of one draw."""
        steps = self.ruler.steps.after(squares, torch.zeros_like(squares))
        of = fold(self.seed, "curvature", draw)
        found = replace(self.ruler, steps=steps).spectrum(mean, others, of)
        return [(MEAN, 1.0, "own", draw, *pair) for pair in found]


def noises(
    objective: Objective,
    g: Float[Tensor, " N"],
    h: Float[Tensor, " N"],
    first: Any,
    choices: Sequence[Sketched],
    linear: Mapping[str, slice],
    seed: int,
) -> Iterator[tuple[Key, Float[Tensor, " N"]]]:
    """One draw of the minibatch's noise, by (noise, rate, seeds), from the gradients of two
    batches, of that in the ``linear`` weights alone, and of every choice, on the ``first`` batch.
    """
    whole = (g - h) / 2**0.5
    yield (MINIBATCH, 1.0, "own"), whole
    yield (LINEAR, 1.0, "own"), only(whole, linear.values())
    for each in choices:
        with objective.sketched(each.choice.told(), fold(seed, "sketch"), each.one_seed):
            noise = objective.gradient(first, fold(seed, 0)) - g
        yield each.key, only(noise, linear.values())


def only(noise: Float[Tensor, " N"], places: Iterable[slice]) -> Float[Tensor, " N"]:
    """The same noise in these places and nowhere else: what is exact differs by rounding only."""
    kept = torch.zeros_like(noise)
    for place in places:
        kept[place] = noise[place]
    return kept
