"""Tests of any estimator, yours too: is it unbiased, is its variance the closed form? By every
outcome of a small pair where there is an end of them, else by draws.

    x, y = torch.randn(4, 3).double(), torch.randn(4, 2).double()
    assert_unbiased(CountSketch(0.5), x, y)
    assert_variance(CountSketch(0.5), x, y)
    assert_variance(Gaussian(0.5), x, y, draws=50_000)

Outcomes can be enumerated because estimators draw by the methods of ``seeds.Generator`` alone: each
choice is put in the place of the random one in turn.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import combinations, permutations, product
from math import prod
from typing import Any

import torch
from torch import Tensor

from sketchvar.estimators.empirical import Measured, empirical
from sketchvar.estimators.estimator import Estimator, estimate
from sketchvar.estimators.metric import EUCLIDEAN, Metric
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.seeds import MAKE, Generator

ROUNDING, CANCELLED = 1e-12, 1e-14  # errors that are put down to float64
BOUND = 4.5  # standard errors: a true formula lies further away for 7 of 10⁶ seeds
# and a formula that is WRONG by this part lies so many standard errors beyond the bound that it is
# rejected with probability above 0.999
WRONG, POWER = 0.05, 3.1

Outcomes = Iterable[tuple[float, Tensor]]


def assert_unbiased(
    estimator: Estimator, x: Tensor, y: Tensor, draws: int = 0, seed: int = 0
) -> None:
    """Raise AssertionError unless E Ĝ = G on a float64 pair X (n × p), Y (n × q): over every
    outcome, or within the errors of so many ``draws`` from ``seed`` where ``draws`` > 0.

    >>> from sketchvar.estimators import CountSketch
    >>> x, y = torch.randn(2, 4, 3, dtype=torch.float64)
    >>> assert_unbiased(CountSketch(0.5), x, y)

    The chance that draws reject an unbiased estimator is 7 in 10⁶.
    """
    exact = x.T @ y
    if draws:
        seen = empirical(estimator, x, y, draws, seed).mean
        false_alarm = 2 * torch.special.ndtr(torch.tensor(-BOUND, dtype=torch.float64))
        bound = -torch.special.ndtri(false_alarm / 2 / exact.numel())  # one chance for all entries
        worst = seen.z(exact).abs().max()
        assert worst < bound, f"{estimator} is biased: an entry of its mean is at z = {worst:.1f}"
        return
    mean, _ = mean_and_variance(estimator, x, y)
    error = (mean - exact).norm() / (x.norm() * y.norm())
    assert error < ROUNDING, f"{estimator} is biased: ‖E Ĝ − G‖ is {error:.2g} of ‖X‖‖Y‖"


def assert_variance(
    estimator: Estimator,
    x: Tensor,
    y: Tensor,
    draws: int = 0,
    seed: int = 0,
    weights: Tensor | Metric | None = None,
) -> None:
    """Raise AssertionError unless E‖Ĝ − G‖² is ``estimator.variance`` on a float64 pair X (n × p),
    Y (n × q): over every outcome, or within the error of so many ``draws`` from ``seed`` where
    ``draws`` > 0. In the metric of ``weights``, as ``Moments.of`` takes them.

    Draws reject a true formula with a chance of 7 in 10⁶, and one that is 5 % off with a chance
    above 0.999: AssertionError too where they are too few for that.
    """
    m = Moments.of(x, y, weights)
    formula = estimator.variance(m)
    if draws:
        seen = empirical(estimator, x, y, draws, seed, weights).variance
        assert_within(seen, formula, str(estimator))
        return
    _, variance = mean_and_variance(estimator, x, y, m.metric)
    # a closed form is a difference of terms as large as Q
    room = ROUNDING * formula + CANCELLED * m.Q
    message = f"{estimator}: E‖Ĝ − G‖² is {variance:.6g}, not {formula:.6g}"
    assert (variance - formula).abs() <= room, message


def assert_within(seen: Measured, formula: Tensor, name: str) -> None:
    """Raise AssertionError unless ``formula`` is within the error of what was ``seen``, and one 5 %
    off is not.
    """
    z = seen.z(formula)
    assert z.abs() < BOUND, f"{name}: measured {seen.value:.6g}, not {formula:.6g}: z = {z:.1f}"
    fewer = (BOUND + POWER) * seen.stderr / (WRONG / (1 + WRONG) * formula)
    enough = formula == 0 or fewer < 1
    assert enough, f"{name}: draws={seen.count} are too few; take {seen.count * fewer**2:.0f}"


def mean_and_variance(
    estimator: Estimator, x: Tensor, y: Tensor, metric: Metric = EUCLIDEAN
) -> tuple[Tensor, Tensor]:
    """E Ĝ (p × q) and E‖Ĝ − G‖² of ``estimator`` in a metric, on a float64 pair X (n × p), Y
    (n × q), as sums over every outcome. Raises what ``enumerate_outcomes`` does: ValueError,
    TypeError.
    """
    exact = x.T @ y
    total, mean, variance = 0.0, torch.zeros_like(exact), torch.zeros((), dtype=x.dtype)
    for probability, estimated in enumerate_outcomes(estimator, x, y):
        total += probability
        mean += probability * estimated
        variance += probability * metric.norm_sq(estimated - exact)
    assert abs(total - 1) < ROUNDING, f"the probabilities of {estimator} sum to {total}"
    return mean, variance


def enumerate_outcomes(
    estimator: Estimator, x: Tensor, y: Tensor
) -> Iterator[tuple[float, Tensor]]:
    """Yield (probability, Ĝ) for every outcome on a float64 pair X (n × p), Y (n × q), through both
    phases. Keep it small: signs for n rows have 2ⁿ outcomes, a permutation n!.

    Raises TypeError where there is no end of outcomes, ValueError where the estimator draws numbers
    that are not from ``seeds.generator``.
    """
    if x.dtype != torch.float64:
        raise ValueError(f"outcomes are compared to 1e-12, got a pair of {x.dtype}; use float64")
    first, other = (
        next(Tree().walk(partial(estimate, estimator, x, y, seed)))[1] for seed in (1, 2)
    )
    if not torch.equal(first, other):
        raise ValueError(
            f"{estimator} draws numbers that cannot be enumerated; draw by the methods of"
            " estimators.seeds.generator(seed)"
        )
    yield from Tree().walk(partial(estimate, estimator, x, y, 1))


class Tree:
    """The random choices of a program and their outcomes, walked depth first.

    ``path`` holds the choices of this run: what is still to come of each, and the outcome that it
    has now.
    """

    def __init__(self) -> None:
        self.path: list[tuple[Iterator[tuple[float, Tensor]], tuple[float, Tensor]]] = []
        self.made: dict[Any, Tensor] = {}

    def walk(self, run: Callable[[], Tensor]) -> Iterator[tuple[float, Tensor]]:
        """Yield (probability, result) of ``run`` for every outcome of its choices."""
        while True:
            self.made = {}
            token = MAKE.set(partial(Branch.of, self))
            try:
                result = run()
            finally:
                MAKE.reset(token)
            yield prod(probability for _, (probability, _) in self.path), result
            if not self.advance():
                return

    def choose(self, key: Any, outcomes: Outcomes) -> Tensor:
        """The outcome of the choice called ``key``, which has one outcome in a run."""
        if key not in self.made:
            if len(self.made) == len(self.path):
                rest = iter(outcomes)
                self.path.append((rest, next(rest)))
            self.made[key] = self.path[len(self.made)][1][1]
        return self.made[key]

    def advance(self) -> bool:
        """Give the last choice that has outcomes left its next one; False where none has."""
        while self.path:
            rest, _ = self.path.pop()
            following = next(rest, None)
            if following is not None:
                self.path.append((rest, following))
                return True
        return False


class Branch(Generator):
    """A generator whose choices are those of a ``Tree``; one of the same seed makes the same."""

    tree: Tree
    count: int

    @classmethod
    def of(cls, tree: Tree, device: torch.device | str) -> "Branch":
        g = cls(device)
        g.tree, g.count = tree, 0
        return g

    def choose(self, outcomes: Outcomes) -> Tensor:
        self.count += 1
        return self.tree.choose((self.initial_seed(), self.count), outcomes)

    def normals(self, *shape: int) -> Tensor:
        raise TypeError("normal numbers have no end of outcomes; test by draws, as in draws=50_000")

    def uniforms(self, *shape: int) -> Tensor:
        raise TypeError("uniform numbers have no end of outcomes; test by draws")

    def signs(self, *shape: int) -> Tensor:
        return self.choose(equally(product((-1.0, 1.0), repeat=prod(shape)), torch.float32, shape))

    def integers(self, high: int, count: int) -> Tensor:
        return self.choose(equally(product(range(max(high, 1)), repeat=count)))

    def permutation(self, n: int) -> Tensor:
        return self.choose(equally(permutations(range(n)), torch.int32))

    def sample(self, n: int, k: int) -> Tensor:
        return self.choose(equally(combinations(range(n), k)))

    def subsets(self, n: int, k: int, count: int) -> Tensor:
        every = product(combinations(range(n), k), repeat=count)
        return self.choose(equally(every, torch.int64, (count, k)))

    def choices(self, pi: Tensor, k: int) -> Tensor:
        possible = pi.nonzero()[:, 0].tolist()
        rows = [torch.tensor(each) for each in product(possible, repeat=k)]
        return self.choose((pi[each].prod().item(), each) for each in rows)

    def choose_columns(self, weights: Tensor) -> Tensor:
        first = torch.eye(1, weights.shape[1], dtype=weights.dtype)
        total = weights.sum(1, keepdim=True)
        share = torch.where(total == 0, first, weights / total)
        every = product(*(row.nonzero()[:, 0].tolist() for row in share))
        columns = [torch.tensor(each, dtype=torch.int64) for each in every]
        return self.choose((share.gather(1, c[:, None]).prod().item(), c) for c in columns)

    def coins(self, pi: Tensor, dtype: torch.dtype) -> Tensor:
        p, certain = pi.flatten(), ~(pi < 1).flatten()
        open_ = ((p > 0) & (p < 1)).nonzero()[:, 0]

        def outcomes() -> Outcomes:
            for heads in product((False, True), repeat=len(open_)):
                up = certain.index_put((open_,), torch.tensor(heads, dtype=torch.bool))
                yield torch.where(up, p, 1 - p)[open_].prod().item(), up.view_as(pi)

        return self.choose(outcomes())

    def flips(self, pi: Tensor, numbers: Callable[[int], Tensor]) -> Tensor:
        return self.coins(pi, pi.dtype)


def equally(
    every: Iterable[Any], dtype: torch.dtype = torch.int64, shape: tuple[int, ...] = (-1,)
) -> Outcomes:
    """Outcomes that are equally likely, as tensors of this dtype and shape."""
    outcomes = list(every)
    return ((1 / len(outcomes), torch.tensor(o, dtype=dtype).reshape(shape)) for o in outcomes)
