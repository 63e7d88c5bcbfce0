"""What the noise of one update costs: of minibatches and of estimators, draw by draw."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import joblib
import pandas as pd
import torch
from torch import Tensor

from sketchvar.analysis.noise.curvature import Curvature
from sketchvar.analysis.noise.draw import (
    ENOUGH,
    MINIBATCH,
    NOT_ONE,
    Drawing,
    Key,
    Ruler,
    Sketched,
)
from sketchvar.analysis.noise.objective import Objective
from sketchvar.analysis.noise.progress import PROGRESS, measure_progress
from sketchvar.estimators.layers.convert import Patterns

# Draws of the minibatch for each of an estimator's: its cost varies twice as much, and one takes a
# fifth of the time of all estimators'.
OFTEN = 3
DRAWN = ["noise", "rate", "seeds", "draw", "variance", "metric", "form", "apart"]
SPECTRA = ["noise", "rate", "seeds", "draw", "node", "weight"]
WAYS = ["noise", "rate", "seeds", "draw", "curvature", "form"]
LAYERS = ["noise", "rate", "seeds", "draw", "layer", "variance", "metric", "form"]


class Draws(NamedTuple):
    """``totals``: of every draw, its variance ‖δ‖², metric δᵀDδ, uᵀHu (``form``) and that of
    tensors that err each for itself (``apart``). ``spectra``: how it spreads over curvatures, where
    that was asked for. ``layers``: of every linear layer by itself. ``progress``: how the steps
    shorten by it, as ``measure_progress`` has it. ``ways``: uᵀHu by other curvatures.
    """

    totals: pd.DataFrame
    spectra: pd.DataFrame
    layers: pd.DataFrame
    progress: pd.DataFrame
    ways: pd.DataFrame


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
    signal: bool = True,
    coherence: bool = True,
    ways: Mapping[str, Curvature] | None = None,
    jobs: int = 1,
) -> Draws:
    """``draws`` draws of every choice, and ``OFTEN`` times as many of the minibatch.

    Each draw takes batches of its own: the minibatch's noise is (g_a − g_b)/√2, an estimator's
    Ĝ − G on a, in the weights of linear layers alone, and the curvature is that of ``curved`` more.
    So draws are independent, curvature and all. The steps are those after (g_a² + g_b²)/2 is seen,
    to which the side of the noise does not matter. ``LINEAR`` is the minibatch's noise in those
    weights. ``layers`` and ``ways`` are of the first ``draws``, and so is ``apart`` with
    ``coherence``; without it ``apart`` is of the minibatch and of what shares one seed alone, and
    of half of them. Spectra are of the first ``spectra`` (all of those unless given), and not of
    noise that no horizon is asked of: ``LINEAR``, and what shares one seed. With ``signal`` also
    ``progress``, and spectra of ``MEAN``, the mean of all g_a and g_b.

    ``jobs`` draws are made at a time, on the joblib backend that is active.
    """
    spectra = draws if spectra is None else spectra
    linear = linear_places(ruler.objective, choices, include, exclude)
    coherent = draws if coherence else max(min(ENOUGH, draws), draws // 2)
    drawing = Drawing(
        ruler, tuple(choices), linear, draws, spectra, coherent, seed, layers, signal, coherence,
        ways or {},
    )  # fmt: skip
    kept: list[list[Any]] = []

    def given() -> Iterator[tuple[Any, ...]]:
        for draw in range(OFTEN * draws):
            first, second, *curving = itertools.islice(batches, 2 + curved)
            if draw < spectra and signal:
                kept.append(curving)
            yield draw, first, second, curving

    totals: list[tuple[Any, ...]] = []
    spread: list[tuple[Any, ...]] = []
    parts: list[tuple[Any, ...]] = []
    others: list[tuple[Any, ...]] = []
    mean = squares = torch.zeros_like(ruler.steps.sizes)
    power: dict[Key, Tensor] = {}
    for draw, one in enumerate(run_jobs(jobs, drawing.draw, given())):
        totals, spread, parts = totals + one.totals, spread + one.spectra, parts + one.layers
        others += one.ways
        if one.signal is not None:
            mean = mean + one.signal.mean / (OFTEN * draws)
            squares = squares + one.signal.squares / (OFTEN * draws)
            for key, each in one.signal.power.items():
                count = draws if key[0] != MINIBATCH else OFTEN * draws
                power[key] = power.get(key, 0.0) + each / count
        if progress is not None:
            progress(draw + 1, OFTEN * draws)
    shorter: list[tuple[Any, ...]] = []
    if signal:
        tasks = ((draw, mean, squares, curving) for draw, curving in enumerate(kept))
        for found in run_jobs(jobs, drawing.spread_mean, tasks):
            spread += found
        minibatch = power[MINIBATCH, 1.0, "own"]
        real = mean.square() - minibatch / (2 * OFTEN * draws)
        own = {key[:2]: power[key] for key in power if key[0] not in NOT_ONE and key[2] == "own"}
        shorter = measure_progress(ruler.steps, real, squares, minibatch, own, MINIBATCH)
    return Draws(
        pd.DataFrame(totals, columns=DRAWN),
        pd.DataFrame(spread, columns=SPECTRA),
        pd.DataFrame(parts, columns=LAYERS),
        pd.DataFrame(shorter, columns=PROGRESS),
        pd.DataFrame(others, columns=WAYS),
    )


def run_jobs(
    jobs: int, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]
) -> Iterator[Any]:
    """``function(*task)`` of every task, in their order."""
    backend, _ = joblib.parallel.get_active_backend()
    streams = {"return_as": "generator"} if backend.supports_return_generator else {}
    run = joblib.Parallel(n_jobs=jobs, **streams)
    yield from run(joblib.delayed(function)(*task) for task in tasks)


def linear_places(
    objective: Objective, choices: Sequence[Sketched], include: Patterns, exclude: Patterns
) -> dict[str, slice]:
    """Layer -> where its weight is, of those that any choice's estimators can take. Raises
    ValueError where there are none.
    """
    if not choices:
        return {}
    found: set[str] = set()
    for choice in {each.choice for each in choices}:
        with objective.sketched(choice.told(), 0, False, include, exclude) as done:
            found |= set(done.converted)
    places = objective.weights_of(
        [name for name, _ in objective.model.named_modules() if name in found]
    )
    if not places:
        raise ValueError(f"no layer of the model can be sketched:\n{done}")
    return places


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
