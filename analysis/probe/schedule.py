"""Schedule: which steps of a training are measured: by periods, or by a budget of time."""

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch

Every = int | Mapping[int, int]
WARM = 2  # plain steps after the first measured one that are slower than others, as of a compiler
LEARN = 3  # from there to the next measured step, which says what measuring costs
GROWTH = 4  # a period is at most so many times the one before: one slow step is not believed
RECENT = 5  # of which the median counts


class Schedule(ABC):
    """Says which steps are measured. ``end`` is told of every step that has ended, in order."""

    @abstractmethod
    def is_due(self, step: int) -> bool:
        """Whether a step is to be measured."""

    @abstractmethod
    def end(self, step: int) -> None:
        """Take note that a step has ended, and was measured if it was due."""


@dataclass(frozen=True)
class Periods(Schedule):
    """From each ``start`` on, every step that is a multiple of its period; none before the first.

    >>> dense_early = Periods(((0, 1), (3, 10), (30, 100)))
    >>> [step for step in range(250) if dense_early.is_due(step)]
    [0, 1, 2, 10, 20, 100, 200]
    """

    periods: tuple[tuple[int, int], ...]

    def is_due(self, step: int) -> bool:
        found = [period for start, period in self.periods if start <= step]
        return bool(found) and step % found[-1] == 0

    def end(self, step: int) -> None:
        pass


class Budget(Schedule):
    """Measures as often as leaves training slower by the fraction ``overhead``.

    Times the run itself: what a measured step takes more than the plain ones before it, by the
    medians of the last few. Then ``period`` = more / (overhead · plain), in steps. Two steps are
    measured to begin with, and every other one at most, as plain steps have to be timed too; so a
    short run may cost more. Which steps they are depends on the machine.

    ``agree`` makes one period of those that several processes would choose.
    """

    def __init__(
        self,
        overhead: float,
        first: int = 0,
        clock: Callable[[], float] = time.perf_counter,
        agree: Callable[[int], int] = int,
    ) -> None:
        self.overhead, self.clock, self.agree = overhead, clock, agree
        self.due, self.opens, self.began = first, -1, 0.0  # plain steps are timed after ``opens``
        self.period = LEARN
        self.measured: deque[float] = deque(maxlen=RECENT)  # seconds of a step
        self.plain: deque[float] = deque(maxlen=RECENT)

    def is_due(self, step: int) -> bool:
        return step == self.due

    def end(self, step: int) -> None:
        if step == self.due:
            self.opens = step + (0 if self.plain else WARM)
            if self.plain:
                self.measured.append(self.clock() - self.began)
                self.period = self.agree(min(self.choose(), GROWTH * self.period))
            self.due = self.opens + self.period
        if step == self.opens:
            self.began = self.clock()
        elif step == self.due - 1:
            now = self.clock()
            self.plain.append((now - self.began) / (step - self.opens))
            self.began = now

    def choose(self) -> int:
        """Choose the period by what was timed."""
        plain = median(self.plain)
        more = max(median(self.measured) - plain, 0.0)
        return max(2, math.ceil(more / (self.overhead * plain))) if plain > 0 else self.period


def read_periods(every: Every) -> Periods:
    """Read ``every``: a period, or the period from each step on. Raises ValueError or TypeError for
    what is neither.
    """
    given = every if isinstance(every, Mapping) else {0: every}
    if not given or not all(type(n) is int for pair in given.items() for n in pair):
        raise TypeError(
            "every= is a number of steps, or the number from each step on, as in"
            f" {{0: 1, 100: 10, 1000: 100}}, got {every!r}"
        )
    for start, period in given.items():
        if period < 1 or start < 0:
            what = f"{{{start}: {period}}}" if isinstance(every, Mapping) else period
            raise ValueError(f"every must be 1 or more, got {what}; from a step that is 0 or more")
    return Periods(tuple(sorted(given.items())))


def clock_of(device: torch.device) -> Callable[[], float]:
    """Wall time, after all work that waits on the device."""
    if device.type != "cuda":
        return time.perf_counter

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read
