"""What the noise of one update costs: of minibatches and of estimators, draw by draw."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis.noise.curvature import Batches, Curvature
from sketchvar.analysis.noise.lanczos import spectrum
from sketchvar.analysis.noise.metric import Steps
from sketchvar.analysis.noise.objective import Objective
from sketchvar.analysis.noise.progress import PROGRESS, measure_progress
from sketchvar.estimators import Choice
from sketchvar.estimators.layers.convert import Patterns
from sketchvar.estimators.seeds import fold

MINIBATCH, LINEAR = "minibatch", "minibatch, linear weights"
OFTEN = 4  # draws of the minibatch for each of an estimator: its cost varies three times as much
MEAN = "mean of the gradients"  # of all draws: the gradient, and a little of the noise
NOT_ONE = (MINIBATCH, LINEAR, MEAN)  # no estimator's
DRAWN = ["noise", "rate", "seeds", "draw", "variance", "metric", "form", "apart"]
SPECTRA = ["noise", "rate", "seeds", "draw", "node", "weight"]
LAYERS = ["noise", "rate", "seeds", "draw", "layer", "variance", "metric", "form"]
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

    def metric(self, noise: Float[Tensor, " N"]) -> float:
        """δᵀDδ."""
        return float(noise.double().square() @ self.steps.sizes.double())

    def spectrum(
        self, noise: Float[Tensor, " N"], batches: Batches, seed: int
    ) -> list[tuple[float, float]]:
        """How D^½δ spreads over the curvature D^½HD^½: (node, weight) pairs."""
        root = self.steps.sizes.sqrt()

        def product(z: Tensor) -> Tensor:
            return root * self.products.product(root * z, batches, seed)

        nodes, weights = spectrum(product, root * noise, self.nodes)
        return list(zip(nodes.tolist(), weights.tolist(), strict=True))


class Draws(NamedTuple):
    """``totals``: of every draw, its variance ‖δ‖², metric δᵀDδ, uᵀHu (``form``) and that of
    tensors that err each for itself (``apart``). ``spectra``: how it spreads over curvatures, where
    that was asked for. ``layers``: of every linear layer by itself. ``progress``: how the steps
    shorten by it, as ``measure_progress`` has it.
    """

    totals: pd.DataFrame
    spectra: pd.DataFrame
    layers: pd.DataFrame
    progress: pd.DataFrame


def draw_noise(
    ruler: Ruler,
    batches: Iterator[Any],
    choices: Sequence[Sketched],
    draws: int,
    seed: int = 0,
    spectra: int | None = None,
    layers: bool = False,
    curved: int = 1,
    include: Patterns = None,
    exclude: Patterns = None,
    progress: Callable[[int, int], object] | None = None,
) -> Draws:
    """``draws`` draws of every choice, and ``OFTEN`` times as many of the minibatch.

    Each draw takes batches of its own: the minibatch's noise is (g_a − g_b)/√2, an estimator's
    Ĝ − G on a, in the weights of linear layers alone, and the curvature is that of ``curved`` more.
    So draws are independent, curvature and all. The steps are those after (g_a² + g_b²)/2 is seen,
    to which the side of the noise does not matter. ``LINEAR`` is the minibatch's noise in those
    weights, ``MEAN`` the mean of all g_a and g_b, of which only the spectrum is taken. ``apart``
    and ``layers`` are of the first ``draws``, spectra of the first ``spectra`` (all of those unless
    given), and not of noise that no horizon is asked of: ``LINEAR``, and what shares one seed.
    """
    spectra = draws if spectra is None else spectra
    totals: list[tuple[Any, ...]] = []
    spread: list[tuple[Any, ...]] = []
    parts: list[tuple[Any, ...]] = []
    objective = ruler.objective
    linear = linear_places(objective, choices, include, exclude)
    mean = squares = torch.zeros_like(ruler.steps.sizes)
    power: dict[Key, Tensor] = {}
    kept: list[list[Any]] = []
    for draw in range(OFTEN * draws):
        first, second, *others = itertools.islice(batches, 2 + curved)
        full, of, at = draw < draws, fold(seed, "curvature", draw), fold(seed, "draw", draw)
        g, h = objective.gradient(first, fold(at, 0)), objective.gradient(second, fold(at, 1))
        known = (g.square() + h.square()) / 2
        mean, squares = mean + (g + h) / (2 * OFTEN * draws), squares + known / (OFTEN * draws)
        if full:
            kept.append(others)
        for key, noise in noises(objective, g, h, first, choices if full else None, linear, at):
            here = replace(ruler, steps=ruler.steps.after(known, noise))
            count = draws if key[0] != MINIBATCH else OFTEN * draws
            power[key] = power.get(key, 0.0) + noise.square() / count
            if draw < spectra and key[0] != LINEAR and key[2] == "own":
                found = here.spectrum(noise, others, of)
                spread += [(*key, draw, *pair) for pair in found]
            form = here.form(noise, others, of)
            apart = here.apart(noise, others, of) if full else math.nan
            variance = float(noise.double().square().sum())
            totals.append((*key, draw, variance, here.metric(noise), form, apart))
            for name, place in linear.items() if full and layers else ():
                mine = only(noise, [place])
                variance, form = float(mine.double().square().sum()), here.form(mine, others, of)
                parts.append((*key, draw, name, variance, here.metric(mine), form))
        if progress is not None:
            progress(draw + 1, OFTEN * draws)
    here = replace(ruler, steps=ruler.steps.after(squares, torch.zeros_like(squares)))
    for draw, others in enumerate(kept[:spectra]):
        found = here.spectrum(mean, others, fold(seed, "curvature", draw))
        spread += [(MEAN, 1.0, "own", draw, *pair) for pair in found]
    minibatch = power[MINIBATCH, 1.0, "own"]
    signal = mean.square() - minibatch / (2 * OFTEN * draws)
    own = {key[:2]: power[key] for key in power if key[0] not in NOT_ONE and key[2] == "own"}
    shorter = measure_progress(ruler.steps, signal, squares, minibatch, own, MINIBATCH)
    return Draws(
        pd.DataFrame(totals, columns=DRAWN),
        pd.DataFrame(spread, columns=SPECTRA),
        pd.DataFrame(parts, columns=LAYERS),
        pd.DataFrame(shorter, columns=PROGRESS),
    )


def noises(
    objective: Objective,
    g: Float[Tensor, " N"],
    h: Float[Tensor, " N"],
    first: Any,
    choices: Sequence[Sketched] | None,
    linear: Mapping[str, slice],
    seed: int,
) -> Iterator[tuple[Key, Float[Tensor, " N"]]]:
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
