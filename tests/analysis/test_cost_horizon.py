"""Noise over a horizon: against torch's own optimizers, and against the covariance of a whole
quadratic.
"""

import math

import numpy as np
import pytest
import torch

from sketchvar.analysis.noise.horizon import Dynamics
from sketchvar.analysis.noise.lanczos import nodes_for, spectrum

CURVATURES = np.array([0.02, 0.3, 1.0, 1.9])


def held_by_sgd(
    x: float, horizon: int, momentum: float, nesterov: bool, rates: list[float]
) -> float:
    """½h Σ_t w_T², w_T the answer of torch's SGD on ½hw² to a gradient error of 1 at step t."""
    total = 0.0
    for hit in range(horizon):
        w = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        optimizer = torch.optim.SGD([w], 1.0, momentum, nesterov=nesterov)
        for step in range(horizon):
            optimizer.param_groups[0]["lr"] = rates[step] * (1 - momentum)
            w.grad = x * w.detach() + (1.0 if step == hit else 0.0)
            optimizer.step()
        total += float(w.detach()) ** 2
    return 0.5 * x * total


@pytest.mark.parametrize("horizon", [1, 2, 7])
@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.8, True)])
def test_every_error_goes_through_torchs_optimizer(horizon, momentum, nesterov):
    rates = [1 - t / 10 for t in range(horizon)]
    truth = [held_by_sgd(x, horizon, momentum, nesterov, rates) for x in CURVATURES]
    found = Dynamics(momentum, nesterov, tuple(rates)).held(CURVATURES, horizon)
    np.testing.assert_allclose(found, truth, rtol=1e-12)
    if horizon > 1:  # must fail: another momentum is another cost
        assert (
            abs(Dynamics(0.5, nesterov, tuple(rates)).held(CURVATURES, horizon) / truth - 1) > 0.05
        ).any()


def test_closed_forms():
    x, T = CURVATURES, 12
    np.testing.assert_allclose(
        Dynamics().held(x, T), 0.5 * x * (1 - (1 - x) ** (2 * T)) / (1 - (1 - x) ** 2)
    )
    np.testing.assert_allclose(Dynamics(0.9).held(x, 1), 0.5 * 0.1**2 * x)
    wide = np.append(x, [10.0, 37.0])
    for beta, each in ((0.0, x), (0.9, wide)):
        truth = (1 + beta) / (2 * (2 * (1 + beta) - (1 - beta) * each))
        np.testing.assert_allclose(Dynamics(beta).held(each, math.inf), truth)
        np.testing.assert_allclose(Dynamics(beta).held(each, 5000), truth, rtol=1e-6)


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.8, True)])
def test_what_is_gained_is_what_torchs_optimizer_gains(momentum, nesterov):
    rates = (1.0, 0.7, 0.4, 0.1, 0.1)
    dynamics = Dynamics(momentum, nesterov, rates)
    for x in CURVATURES:
        w = torch.nn.Parameter(torch.tensor(1 / x, dtype=torch.float64))  # a gradient of 1
        optimizer = torch.optim.SGD([w], 0.0, momentum, nesterov=nesterov)
        start = float(dynamics.mode(x)) / x / (1 - momentum)
        optimizer.state[w]["momentum_buffer"] = torch.tensor(start, dtype=torch.float64)
        for rate in rates:
            optimizer.param_groups[0]["lr"] = rate * (1 - momentum)
            w.grad = x * w.detach()
            optimizer.step()
        truth = 0.5 * x * (1 / x**2 - float(w.detach()) ** 2)
        assert float(dynamics.gained(x, 5)) == pytest.approx(truth, rel=1e-9)
    assert float(dynamics.gained(0.0, 5)) == pytest.approx(sum(rates), rel=1e-3)


def test_the_mode_is_where_an_error_ends():
    for beta, nesterov in ((0.9, False), (0.8, True)):
        dynamics, x = Dynamics(beta, nesterov), 0.01
        (a, b), (c, d), _ = dynamics.step(np.float64(x))
        state = np.array([1.0, 0.0])
        for _ in range(2000):
            state = np.array([[a, b], [c, d]]) @ state
        assert float(dynamics.mode(np.float64(x))) == pytest.approx(state[1] / state[0])
        assert float(dynamics.mode(np.float64(1e-6))) == pytest.approx(1e-6, rel=1e-3)
    assert Dynamics(0.9, schedule=(0.5, 2.0)).edge == pytest.approx(19)


def test_what_is_flat_negative_or_unstable():
    flat = np.array([0.0, -3.0])
    assert (Dynamics(0.9).held(flat, 1000) == 0).all()
    np.testing.assert_allclose(Dynamics(0.9).held(flat, math.inf), 0.25, rtol=1e-5)
    assert np.isinf(Dynamics().held(np.array([2.1, 39.0]), math.inf)).all()
    assert list(np.isinf(Dynamics(0.9).held(np.array([2.1, 39.0]), math.inf))) == [False, True]
    assert np.isfinite(Dynamics().held(np.array([2.1]), 10)).all()
    for beta, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
        dynamics = Dynamics(beta, nesterov)
        (a, b), (c, d), _ = dynamics.step(np.float64(dynamics.edge))
        assert np.abs(np.linalg.eigvals([[a, b], [c, d]])).max() == pytest.approx(1)
    for wrong in (0, 1.5, math.nan):
        with pytest.raises(ValueError, match="a horizon is"):
            Dynamics().held(flat, wrong)


def quadratic(size: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """H of a spectrum over two decades, step sizes, and the root of a noise covariance."""
    g = torch.Generator().manual_seed(1)
    a, root = (torch.randn(size, size, generator=g, dtype=torch.float64) for _ in range(2))
    q, _ = torch.linalg.qr(a)
    h = q @ torch.diag(torch.logspace(-2, 0.5, size, dtype=torch.float64)) @ q.T
    return h, torch.rand(size, generator=g, dtype=torch.float64) + 0.1, root


@pytest.mark.parametrize("horizon", [1, 10, 100, math.inf])
def test_quadrature_is_the_covariance_of_the_whole_quadratic(horizon):
    h, sizes, root = quadratic()
    n, beta = len(sizes), 0.9
    eye = torch.eye(n, dtype=torch.float64)
    d = torch.diag(sizes)
    a = torch.cat(
        [
            torch.cat([eye - (1 - beta) * d @ h, -beta * d], 1),
            torch.cat([(1 - beta) * h, beta * eye], 1),
        ]
    )
    b = torch.cat([-(1 - beta) * d @ root, (1 - beta) * root])
    c = torch.zeros(2 * n, 2 * n, dtype=torch.float64)
    for _ in range(20000 if math.isinf(horizon) else horizon):
        c = a @ c @ a.T + b @ b.T
    truth = float(0.5 * torch.trace(h @ c[:n, :n]))

    def cost(depth: int, momentum: float = beta) -> float:
        """Summed over the columns of the root: the trace against the noise's covariance."""
        total = 0.0
        for column in root.T:
            nodes, weights = spectrum(
                lambda v: sizes.sqrt() * (h @ (sizes.sqrt() * v)), sizes.sqrt() * column, depth
            )
            total += float(weights @ Dynamics(momentum).held(nodes, horizon))
        return total

    assert cost(n) == pytest.approx(truth, rel=1e-6)
    assert cost(6) == pytest.approx(truth, rel=0.02)
    if 1 < horizon < math.inf:
        assert abs(cost(n, momentum=0.5) / truth - 1) > 0.01  # must fail


@pytest.mark.parametrize("horizon", [10, 16, 30, 100])
def test_there_are_as_many_nodes_as_a_horizon_needs(horizon):
    """Noise over four decades of curvature, against its exact cost."""
    g = torch.Generator().manual_seed(0)
    h = torch.logspace(-4, 0.8, 400, dtype=torch.float64)
    noise = torch.randn(400, generator=g, dtype=torch.float64)
    dynamics = Dynamics(0.9)
    truth = float(noise.square().numpy() @ dynamics.held(h.numpy(), horizon))

    def cost(nodes: int) -> float:
        at, weights = spectrum(lambda v: h * v, noise, nodes)
        return float(weights @ dynamics.held(at, horizon))

    assert cost(nodes_for(horizon)) == pytest.approx(truth, rel=0.05)
    if horizon > 10:
        assert cost(nodes_for(horizon) // 2) != pytest.approx(truth, rel=0.1)  # must fail
    assert (nodes_for(1), nodes_for(100), nodes_for(1e6)) == (6, 24, 64)


def test_quadrature_is_exact_for_polynomials():
    h, _, root = quadratic()
    v = root[0]
    nodes, weights = spectrum(lambda x: h @ x, v, 4)
    for degree in range(8):
        truth = float(v @ torch.linalg.matrix_power(h, degree) @ v)
        assert float(weights @ nodes**degree) == pytest.approx(truth, rel=1e-9)
    assert float(weights @ nodes**8) != pytest.approx(
        float(v @ torch.linalg.matrix_power(h, 8) @ v), rel=1e-6
    )  # must fail
    assert [len(part) for part in spectrum(lambda x: 2 * x, v, 4)] == [1, 1]  # ends early
    assert spectrum(lambda x: h @ x, 0 * v, 4)[1].sum() == 0
