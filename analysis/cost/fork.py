"""forks(): from one state, copies of a training go on with different batches and draws, exact and
with estimators.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import joblib
import pandas as pd
import torch
from torch import nn

from sketchvar.analysis.cost.effective import EXACT, best_factors, effective_batches
from sketchvar.analysis.cost.state import Fork, Method, State
from sketchvar.analysis.noise.cost import endless
from sketchvar.analysis.noise.spread import Loss
from sketchvar.estimators import choices
from sketchvar.estimators.choice import Estimators
from sketchvar.estimators.layers.convert import Patterns

FRACTIONS = (1.0, 0.5, 0.25, 0.125)
FACTORS = (0.5, 1.0, 2.0)
WIDER = 5  # times that a grid of learning rates is made wider, where the best is at its end
KEYS = ["estimator", "rate", "fraction", "factor", "tuning", "fork"]


class Forks(NamedTuple):
    """``rows``: the loss that every fork ended with. ``table``: by method, at its own best learning
    rate and at the common one, the mean loss and the effective batch.
    """

    rows: pd.DataFrame
    table: pd.DataFrame

    def __repr__(self) -> str:
        return self.table.to_string(index=False, float_format="{:.4g}".format)


def forks(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    estimators: Estimators,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int = 16,
    count: int = 7,
    tuning: int = 2,
    fractions: Sequence[float] = FRACTIONS,
    factors: Sequence[float] = FACTORS,
    evaluation: Sequence[Any] | None = None,
    schedule: Sequence[float] = (),
    clip: float = math.inf,
    seed: int = 0,
    include: Patterns = None,
    exclude: Patterns = None,
    jobs: int = 1,
    known: pd.DataFrame | None = None,
    keep: Callable[[pd.DataFrame], object] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Forks:
    """Go on training ``model`` from here on ``loss(model, batch)``, ``count`` times for ``steps``
    steps, by each of ``estimators`` and exactly on ``fractions`` of each batch, and read off which
    batch of exact training each estimator is worth.

    Every method has its own best learning rate, of ``factors`` times the optimizer's, tuned on
    ``tuning`` forks that are not reported; a comparison at one rate says how much noise shortens
    steps, not what it costs. Forks of one number share their batches, so that differences are
    paired. ``batches`` hold examples in the first dimension of their tensors. The losses compared
    are of ``evaluation``, in eval mode: held-out batches, or 8 of ``batches`` that no fork trains
    on. ``schedule`` gives the learning rates of the coming steps over that of now, ``clip`` the
    norm to which gradients are clipped. ``seed`` is that of what estimators draw; ``include`` and
    ``exclude`` choose the layers that they are in, as in ``sketch_linears``.

    ``known`` are rows of an interrupted call; ``keep`` is shown all rows after every fork, and
    ``progress`` called with how many are done, and of how many. ``jobs`` run at a time, on the
    joblib backend that is active. The model and optimizer are left as they are. Raises ValueError
    for numbers that make no sense.
    """
    check_numbers(steps, count, tuning, fractions, factors)
    source = endless(batches)
    held_out = list(itertools.islice(source, 8)) if evaluation is None else list(evaluation)
    numbers = [(True, i) for i in range(tuning)] + [(False, i) for i in range(count)]
    given = {number: list(itertools.islice(source, steps)) for number in numbers}
    state = State(model, optimizer, loss, given, held_out, schedule, clip, seed, include, exclude)
    methods = [Method(EXACT, 1.0, fraction, None) for fraction in sorted(fractions)[::-1]]
    methods += [Method(c.name, c.rate, 1.0, c.told()) for c in choices(estimators)]
    rows = Rows(state, steps, jobs, known, keep, progress)
    rows.add([Fork(m, f, True, i) for m in methods for f in factors for i in range(tuning)])
    for _ in range(WIDER):
        best, farther = best_factors(rows.table), []
        for method in methods:
            beyond = next_factor(best[method[:3]], rows.tried(method), factors)
            farther += [Fork(method, f, True, i) for f in beyond for i in range(tuning)]
        rows.add(farther)
    best = best_factors(rows.table)
    rows.add(
        [
            Fork(m, f, False, i)
            for i in range(count)
            for m in methods
            for f in dict.fromkeys((best[m[:3]], 1.0))
        ]
    )
    return Forks(rows.table, effective_batches(rows.table))


def check_numbers(
    steps: int, count: int, tuning: int, fractions: Sequence[float], factors: Sequence[float]
) -> None:
    """Raise ValueError for numbers of forks that say nothing."""
    if steps < 1 or count < 2 or tuning < 1:
        raise ValueError(
            "forks need 1 step, 2 of each method and 1 to tune by, or more, got"
            f" {steps} steps, {count} and {tuning}"
        )
    if 1.0 not in fractions or 1.0 not in factors or min(*fractions, *factors) <= 0:
        raise ValueError(
            "fractions and factors are positive and hold 1, the whole batch at the rate that it"
            f" has, got {fractions} and {factors}"
        )


def next_factor(best: float, tried: set[float], factors: Sequence[float]) -> list[float]:
    """The factor to try beyond the best one where that is the last on its side, as far apart as
    ``factors`` are and at most ``WIDER`` times beyond them.
    """
    grid = sorted(factors)
    if len(grid) < 2 or min(tried) < best < max(tried):
        return []
    apart = grid[1] / grid[0]
    beyond = best / apart if best == min(tried) else best * apart
    farthest = apart ** (WIDER + 0.5)
    return [beyond] if grid[0] / farthest < beyond < grid[-1] * farthest else []


class Rows:
    """The rows of forks, each run once: those that are known already are not run again."""

    def __init__(
        self,
        state: State,
        steps: int,
        jobs: int,
        known: pd.DataFrame | None,
        keep: Callable[[pd.DataFrame], object] | None,
        progress: Callable[[int, int], object] | None,
    ) -> None:
        self.state, self.steps, self.jobs = state, steps, jobs
        self.keep, self.progress = keep, progress
        self.found: dict[tuple[Any, ...], float] = {}
        if known is not None and len(known):
            for line in known[known["steps"] == steps].itertuples(index=False):
                self.found[tuple(getattr(line, key) for key in KEYS)] = float(line.loss)  # type: ignore[arg-type]

    @property
    def table(self) -> pd.DataFrame:
        """A row per fork: ``KEYS``, steps, and the loss that it ended with."""
        lines = [(*key, self.steps, loss) for key, loss in self.found.items()]
        return pd.DataFrame(lines, columns=[*KEYS, "steps", "loss"])

    def tried(self, method: Method) -> set[float]:
        """The learning rate factors at which a method was tuned."""
        return {key[3] for key in self.found if key[:3] == method[:3] and key[4]}

    def add(self, wanted: Sequence[Fork]) -> None:
        """Run those of these forks that are not known."""
        left = [fork for fork in wanted if fork.key not in self.found]
        backend, _ = joblib.parallel.get_active_backend()
        streams = {"return_as": "generator"} if backend.supports_return_generator else {}
        losses = joblib.Parallel(n_jobs=self.jobs, **streams)(
            joblib.delayed(self.state.run)(fork) for fork in left
        )
        for done, (fork, loss) in enumerate(zip(left, losses, strict=True), 1):
            self.found[fork.key] = loss
            if self.keep is not None:
                self.keep(self.table)
            if self.progress is not None:
                self.progress(done, len(left))
