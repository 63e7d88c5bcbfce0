"""Dynamics: what becomes of an error of the weights over many steps, at every curvature."""

import math
from dataclasses import dataclass, replace

import numpy as np

FLAT = 1e-6  # stands for the limit of curvature 0, where it is taken last
Numbers = np.ndarray


@dataclass(frozen=True)
class Dynamics:
    """Along a direction of dimensionless curvature x = ηh the error z of the weights and the
    momentum m obey

        m ← βm + (1 − β)(xz + ξ),    z ← z − rm    (``nesterov``: z ← z − r[βm + (1 − β)(xz + ξ)])

    with ξ the noise of the step and r its learning rate over that of now (``schedule``; 1 past its
    end). Curvature below 0 counts as flat.
    """

    momentum: float = 0.0
    nesterov: bool = False
    schedule: tuple[float, ...] = ()

    def held(self, curvature: Numbers, horizon: float) -> Numbers:
        """f_T(x): the expected loss that noise of power 1 in each of T = ``horizon`` steps leaves
        behind at their end.

        f_T = ½x C_zz, C the covariance of (z, m): C ← ACAᵀ + bbᵀ. So f_1 = ½(1 − β)²x, and without
        momentum ½x(1 − (1 − x)^{2T})/(1 − (1 − x)²). f_∞ = (1 + β)/(2(2(1 + β) − (1 − β)x)) at a
        constant rate, infinite from ``edge`` on. In flat directions 0 for a finite T and ¼ for
        T = ∞, as the limit h → 0 is taken last. Raises ValueError for a horizon below 1 or between
        whole numbers.
        """
        x = np.maximum(np.asarray(curvature, dtype=float), 0.0)
        if check_horizon(horizon) == math.inf:
            return self.limit(np.maximum(x, FLAT))
        zz, zm, mm = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
        with np.errstate(over="ignore", invalid="ignore"):
            for step in range(int(horizon)):
                (a, b), (c, d), (s, t) = self.step(x, self.rate(step))
                zz, zm, mm = (
                    a * a * zz + 2 * a * b * zm + b * b * mm + s * s,
                    a * c * zz + (a * d + b * c) * zm + b * d * mm + s * t,
                    c * c * zz + 2 * c * d * zm + d * d * mm + t * t,
                )
            return np.nan_to_num(0.5 * x * zz, nan=np.inf)

    def gained(self, curvature: Numbers, horizon: float) -> Numbers:
        """By how much T steps without noise lower the loss, for a gradient of power 1 along x:
        (1 − z²)/2x, z what is left of an error of 1. The momentum at the start is that of ``mode``.
        """
        x = np.maximum(np.asarray(curvature, dtype=float), FLAT)
        z, m = np.ones_like(x), self.mode(x)
        for step in range(int(check_horizon(horizon))):
            (a, b), (c, d), _ = self.step(x, self.rate(step))
            z, m = a * z + b * m, c * z + d * m
        return (1 - z**2) / (2 * x)

    def mode(self, x: Numbers) -> Numbers:
        """m/z where an error dies away for long: in the eigenvector of A that does so slowest, or
        (where z swings) in its envelope. x itself in flat directions.
        """
        (a, b), (c, d), _ = self.step(x)
        middle = (a + d) / 2
        slowest = middle + np.sqrt(np.maximum(middle**2 - (a * d - b * c), 0.0))
        return (a - slowest) / -b if self.momentum else x

    @property
    def edge(self) -> float:
        """The curvature x from which on steps diverge, at the largest rate: an eigenvalue of A is
        −1.
        """
        beta, rate = self.momentum, max(self.schedule, default=1.0)
        return 2 * (1 + beta) / (rate * (1 - beta) * (1 + 2 * beta * self.nesterov))

    def rate(self, step: int) -> float:
        """The learning rate of a step, over that of now."""
        return self.schedule[step] if step < len(self.schedule) else 1.0

    def step(
        self, x: Numbers, rate: float = 1.0
    ) -> tuple[tuple[Numbers, float], tuple[Numbers, float], tuple[float, float]]:
        """The rows of A, and b, of one step of (z, m)."""
        beta, fresh = self.momentum, 1 - self.momentum
        now, old = (fresh * (1 + beta), beta**2) if self.nesterov else (fresh, beta)
        return (1 - rate * now * x, -rate * old), (fresh * x, beta), (-rate * now, fresh)

    def limit(self, x: Numbers) -> Numbers:
        """f_∞ for x > 0: from the fixed point of the covariance, where there is one."""
        (a, old), (c, kept), (move, fresh) = self.step(x)
        b, d, s, t = (np.full_like(x, each) for each in (old, kept, move, fresh))
        rows = [
            [1 - a * a, -2 * a * b, -b * b],
            [-a * c, 1 - a * d - b * c, -b * d],
            [-c * c, -2 * c * d, 1 - d * d],
        ]
        system = np.stack([np.stack(row, -1) for row in rows], -2)
        noise = np.stack([s * s, s * t, t * t], -1)[..., None]
        held = 0.5 * x * np.linalg.solve(system, noise)[..., 0, 0]
        return np.where(x < replace(self, schedule=()).edge, held, np.inf)


def check_horizon(horizon: float) -> float:
    """The horizon. Raises ValueError for what is no number of steps."""
    if not (horizon >= 1 and (math.isinf(horizon) or horizon == int(horizon))):
        raise ValueError(f"a horizon is a whole number of steps, 1 or more, got {horizon:g}")
    return horizon


def name_horizon(horizon: float) -> str:
    """A horizon, in words."""
    if math.isinf(horizon):
        return "for ever"
    return "one step" if horizon == 1 else f"{horizon:g} steps"
