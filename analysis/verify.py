"""Verify every estimator against repeated draws on several kinds of pairs, each difference as a
z-score.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor

from sketchvar.analysis.loop import layers_at
from sketchvar.analysis.tasks import TASKS
from sketchvar.estimators import Choice, Estimator, Moments, estimate
from sketchvar.estimators.choice import Estimators, as_list, choices
from sketchvar.estimators.seeds import fold, generator

Pair = tuple[Tensor, Tensor]
LEVEL = 1e-3  # joint: the chance that a whole run rejects anything where all is right
RATE = 0.3  # of an estimator whose spelling leaves it open
LEAST = 1000  # draws, whatever the budget: with fewer the tails of z are not normal
WARM = (
    20  # draws that are timed, to share out a budget; they decide how many follow and nothing else
)


@dataclass(frozen=True)
class Check:
    """One estimator on one pair. ``means`` are z-scores of every entry of the mean and of its
    component along G.

    For a biased estimator ``means`` has one z-score instead, of ‖bias‖². ``variance`` is the closed
    form, None where there is none, then without ``z``; ``measured`` and ``stderr`` are of ``draws``
    draws.
    """

    pair: str
    draws: int
    means: Tensor
    variance: float | None
    measured: float
    stderr: float
    z: float


@dataclass(frozen=True)
class Verdict:
    """All checks of one estimator, and of all pairs together: mean of measured over closed form, 1
    if all is right.
    """

    estimator: str
    checks: tuple[Check, ...]
    ratio: float
    stderr: float
    z: float

    @property
    def scores(self) -> Tensor:
        """Every z-score of this estimator."""
        others = [check.z for check in self.checks if check.variance is not None]
        if self.ratio == self.ratio:
            others.append(self.z)
        return torch.cat(
            [*(check.means for check in self.checks), torch.tensor(others, dtype=torch.float64)]
        )


def make_pairs(seed: int) -> dict[str, Pair]:
    """Make pairs of several kinds, small and in float64; no row is so large or so rarely kept that
    a few draws decide.
    """
    g = generator(fold(seed, "pairs"))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    n, p, q = 20, 6, 5
    x, y = normal(n, p), normal(n, q)
    zero = torch.ones(n, 1, dtype=torch.float64).index_fill_(0, torch.tensor([3]), 0)
    ((_, layers),) = layers_at(TASKS["stdlib-lm"], (10,), torch.device("cpu"), seed, "blocks.1.up")
    # a part of real activations as large as the other pairs: every other row, the first columns
    real_x, real_y = (t[:64:2, :8].double() for t in layers["blocks.1.up"].moments.pair)
    return {
        "gaussian": (x, y),
        "heavy tails": (normal(n, p) * normal(n, 1).exp(), normal(n, q) * normal(n, 1).exp()),
        "rank one": (normal(n, 1) * normal(1, p), normal(n, 1) * normal(1, q)),
        "large mean": (normal(n, p) + 5, normal(n, q) + 5),
        "duplicates": (normal(5, p).repeat(4, 1), normal(5, q).repeat(4, 1)),
        "correlated": (x, x @ normal(p, q) + 0.5 * normal(n, q)),
        "zero row": (normal(n, p) * zero, normal(n, q)),
        "activations": (real_x, real_y / real_y.std()),
    }


def verify(
    estimators: Mapping[str, Choice],
    kinds: Mapping[str, Pair],
    seed: int,
    budget: float | None = None,
    draws: int = LEAST,
) -> Iterator[Verdict]:
    """Verify each estimator (label -> choice, as from ``read``) and yield its verdict as soon as it
    is there; oracles are told ‖yᵢ‖² of each pair.

    ``draws`` draws on each pair; with a ``budget`` in seconds, as many as fit an equal share of it
    by the time that a few draws of this estimator took, at least ``LEAST``: a number that is fixed
    before any result is seen.
    """
    for name, choice in estimators.items():
        made = {kind: (choice.told(y.square().sum(1)), x, y) for kind, (x, y) in kinds.items()}
        if budget is not None:
            start = time.perf_counter()
            for estimator, x, y in made.values():
                measure_errors(estimator, x, y, WARM, fold(seed, "warm"))
            each = (time.perf_counter() - start) / WARM
            draws = max(LEAST, int(budget / len(estimators) / each))
        yield judge(name, made, draws, seed)


def judge(
    name: str, made: Mapping[str, tuple[Estimator, Tensor, Tensor]], draws: int, seed: int
) -> Verdict:
    """Judge one estimator by all of its checks."""
    checks, relative = [], []
    for kind, (estimator, x, y) in made.items():
        m = Moments.of(x, y)
        error = measure_errors(estimator, x, y, draws, fold(seed, name, kind))
        squares = error.square().sum(1)
        closed = None if estimator.traits.no_closed_form else estimator.variance(m)
        room = 1e-12 * m.n * m.Q  # for rounding in float64, which is no Monte Carlo error
        if estimator.traits.biased:  # of two independent draws E⟨error, error'⟩ = ‖bias‖²
            products = (error[: draws // 2] * error[draws // 2 : draws // 2 * 2]).sum(
                1, keepdim=True
            )
            means = score(products, estimator.bias_sq(m), room)  # type: ignore[attr-defined]
        else:
            along = error @ m.G.flatten() / m.C.sqrt().clamp(min=1e-300)
            means = score(torch.cat([error, along[:, None]], 1), torch.zeros(()), room.sqrt())
        z = float("nan") if closed is None else float(score(squares[:, None], closed, room))
        stderr = float(squares.std() / draws**0.5)
        checks.append(
            Check(
                kind,
                draws,
                means,
                closed if closed is None else float(closed),
                float(squares.mean()),
                stderr,
                z,
            )
        )
        if closed is not None and closed > room:
            relative.append(squares / closed)
    if not relative:
        return Verdict(name, tuple(checks), float("nan"), float("nan"), float("nan"))
    together = torch.stack(relative).mean(0)
    z = float(score(together[:, None], torch.ones(()), torch.tensor(1e-12)))
    return Verdict(
        name, tuple(checks), float(together.mean()), float(together.std() / draws**0.5), z
    )


def measure_errors(estimator: Estimator, x: Tensor, y: Tensor, draws: int, seed: int) -> Tensor:
    """Measure Ĝ − G of so many draws, (draws × pq) in float64."""
    estimates = [estimate(estimator, x, y, fold(seed, i)) for i in range(draws)]
    return (torch.stack(estimates).double() - x.T @ y).flatten(1)


def score(samples: Tensor, expected: Tensor, room: Tensor) -> Tensor:
    """Score how many standard errors each column's mean is from ``expected``, give or take
    ``room``; N(0, 1) if it is right.

    A plain t statistic of skewed numbers, as squares are, leans: large ones are few, and where they
    are missing the spread looks small as well. Its skewness is removed by a monotone cubic of it
    and of the third moment, which leaves errors of order 1/N. Source: Hall 1992,
    https://doi.org/10.1111/j.2517-6161.1992.tb01876.x.
    """
    n = samples.shape[0]
    centred = samples - samples.mean(0)
    spread = centred.square().mean(0).sqrt()
    difference = samples.mean(0) - expected
    difference = difference.sign() * (difference.abs() - room).clamp(min=0)
    t = torch.where(difference == 0, 0.0, difference / spread) * n**0.5
    a = torch.nan_to_num((centred / spread).pow(3).mean(0)) / n**0.5
    return torch.where(t.isfinite(), t + a / 3 * t**2 + a**2 / 27 * t**3 + a / 6 * (spread > 0), t)


def find_bound(verdicts: Sequence[Verdict], level: float) -> tuple[float, int]:
    """Find the |z| that all scores stay below with probability 1 − level or more if all is right,
    and their number.
    """
    count = sum(len(v.scores) for v in verdicts)
    return float(norm.isf(level / 2 / max(count, 1))), count


def read(estimators: Estimators) -> dict[str, Choice]:
    """Read estimators as ``choices`` does, those without a rate at ``RATE``, each under the text
    that was given.

    >>> read(["countsketch", "gaussian:0.1"])["countsketch"]
    Choice(name='countsketch', rate=0.3)
    """
    found = {}
    for each in as_list(estimators):
        (choice,) = choices(each, RATE)
        found[each if isinstance(each, str) else str(choice)] = choice
    return found
