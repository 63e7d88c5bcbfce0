"""What noise costs over T steps: how much of it each direction still holds, and how it spreads over
directions.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

FLAT = 1e-6  # stands for the limit of curvature 0, where it is taken last

Numbers = np.ndarray


def loss_held(
    curvature: Numbers,
    horizon: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    schedule: Sequence[float] = (),
) -> Numbers:
    """f_T: the expected loss that noise of power 1 in every one of T = ``horizon`` steps leaves
    behind at their end, along directions of dimensionless curvature x = ηh.

    The error z of the weights and the momentum m obey m ← βm + (1 − β)(xz + ξ), z ← z − rm, with r
    the learning rate of the step over that of now (``schedule``; 1 past its end). f_T = ½x C_zz, C
    their covariance: C ← ACAᵀ + bbᵀ. So f_1 = ½(1 − β)²x, and without momentum
    ½x(1 − (1 − x)^{2T})/(1 − (1 − x)²); f_∞ = (1 + β)/(2(2(1 + β) − (1 − β)x)), infinite where the
    steps diverge, x ≥ 2(1 + β)/(1 − β); in flat directions 0 for a finite T and ¼ for T = ∞, as the
    limit h → 0 is taken last. Negative curvature counts as flat.

    Raises ValueError for a horizon below 1.
    """
    if not horizon >= 1:
        raise ValueError(f"a horizon is 1 step or more, got {horizon:g}")
    x = np.maximum(np.asarray(curvature, dtype=float), 0.0)
    if math.isinf(horizon):
        return limit(np.maximum(x, FLAT), momentum, nesterov)
    if horizon != int(horizon):
        raise ValueError(f"a horizon is a whole number of steps, got {horizon:g}")
    zz, zm, mm = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(int(horizon)):
            rate = schedule[step] if step < len(schedule) else 1.0
            (a, b), (c, d), (s, t) = step_matrix(x, momentum, nesterov, rate)
            zz, zm, mm = (
                a * a * zz + 2 * a * b * zm + b * b * mm + s * s,
                a * c * zz + (a * d + b * c) * zm + b * d * mm + s * t,
                c * c * zz + 2 * c * d * zm + d * d * mm + t * t,
            )
        return np.nan_to_num(0.5 * x * zz, nan=np.inf)


def step_matrix(
    x: Numbers, momentum: float, nesterov: bool, rate: float = 1.0
) -> tuple[tuple[Numbers, float], tuple[Numbers, float], tuple[float, float]]:
    """The rows of A, and b, of one step of (z, m)."""
    fresh = 1 - momentum
    now, old = (fresh * (1 + momentum), momentum**2) if nesterov else (fresh, momentum)
    return (1 - rate * now * x, -rate * old), (fresh * x, momentum), (-rate * now, fresh)


def limit(x: Numbers, momentum: float, nesterov: bool) -> Numbers:
    """f_∞ for x > 0: the fixed point of the covariance, where there is one."""
    (a, b), (c, d), (s, t) = step_matrix(x, momentum, nesterov)
    b, d, s, t = (np.full_like(x, each) for each in (b, d, s, t))
    rows = [
        [1 - a * a, -2 * a * b, -b * b],
        [-a * c, 1 - a * d - b * c, -b * d],
        [-c * c, -2 * c * d, 1 - d * d],
    ]
    system = np.stack([np.stack(row, -1) for row in rows], -2)
    noise = np.stack([s * s, s * t, t * t], -1)[..., None]
    held = 0.5 * x * np.linalg.solve(system, noise)[..., 0, 0]
    return np.where(x < stable_until(momentum, nesterov), held, np.inf)


def stable_until(momentum: float, nesterov: bool = False) -> float:
    """The curvature x = ηh from which on steps diverge: there an eigenvalue of A is −1."""
    return 2 * (1 + momentum) / ((1 - momentum) * (1 + 2 * momentum * nesterov))


def spectrum(
    product: Callable[[Float[Tensor, " N"]], Float[Tensor, " N"]],
    start: Float[Tensor, " N"],
    depth: int,
) -> tuple[Numbers, Numbers]:
    """Nodes θ and weights ω with startᵀ f(H) start ≈ Σ ωⱼ f(θⱼ), from ``depth`` products with H:
    Gauss's quadrature by Lanczos, exact for polynomials of degree 2 ``depth`` − 1.

    The vectors are not orthogonalised again, so that three are held: what rounding repeats in the
    nodes it takes from their weights. Source: Golub and Meurant 2010, Matrices, Moments and
    Quadrature, chapter 6; Ubaru, Chen and Saad 2017, doi 10.1137/16M1104974.
    """
    power = float(start.double().square().sum())
    if power == 0:
        return np.zeros(1), np.zeros(1)
    diagonal, beside = [], []
    before, q, beta = torch.zeros_like(start), start / power**0.5, 0.0
    for step in range(depth):
        r = product(q) - beta * before
        diagonal.append(float(r.double() @ q.double()))
        r -= diagonal[-1] * q
        beta = float(r.norm())
        if step == depth - 1 or beta <= 1e-6 * max(map(abs, diagonal)):
            break
        beside.append(beta)
        before, q = q, r / beta
    nodes, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside))
    return nodes, power * vectors[0] ** 2
