"""Noise over a horizon: against torch's own optimizers, and against the covariance of a whole
quadratic.
"""

import math

import numpy as np
import pytest
import torch

from sketchvar.analysis.noise.horizon import loss_held, spectrum, stable_until, step_matrix

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
    found = loss_held(CURVATURES, horizon, momentum, nesterov, rates)
    np.testing.assert_allclose(found, truth, rtol=1e-12)
    if horizon > 1:  # must fail: another momentum is another cost
        assert (abs(loss_held(CURVATURES, horizon, 0.5, nesterov, rates) / truth - 1) > 0.05).any()


def test_closed_forms():
    x, T = CURVATURES, 12
    np.testing.assert_allclose(
        loss_held(x, T), 0.5 * x * (1 - (1 - x) ** (2 * T)) / (1 - (1 - x) ** 2)
    )
    np.testing.assert_allclose(loss_held(x, 1, 0.9), 0.5 * 0.1**2 * x)
    wide = np.append(x, [10.0, 37.0])
    for beta, each in ((0.0, x), (0.9, wide)):
        truth = (1 + beta) / (2 * (2 * (1 + beta) - (1 - beta) * each))
        np.testing.assert_allclose(loss_held(each, math.inf, beta), truth)
        np.testing.assert_allclose(loss_held(each, 5000, beta), truth, rtol=1e-6)


def test_what_is_flat_negative_or_unstable():
    flat = np.array([0.0, -3.0])
    assert (loss_held(flat, 1000, 0.9) == 0).all()
    np.testing.assert_allclose(loss_held(flat, math.inf, 0.9), 0.25, rtol=1e-5)
    assert np.isinf(loss_held(np.array([2.1, 39.0]), math.inf, 0.0)).all()
    assert list(np.isinf(loss_held(np.array([2.1, 39.0]), math.inf, 0.9))) == [False, True]
    assert np.isfinite(loss_held(np.array([2.1]), 10)).all()
    for beta, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
        edge = stable_until(beta, nesterov)
        (a, b), (c, d), _ = step_matrix(np.float64(edge), beta, nesterov)
        assert np.abs(np.linalg.eigvals([[a, b], [c, d]])).max() == pytest.approx(1)
    for wrong in (0, 1.5, math.nan):
        with pytest.raises(ValueError, match="a horizon is"):
            loss_held(flat, wrong)


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
            total += float(weights @ loss_held(nodes, horizon, momentum))
        return total

    assert cost(n) == pytest.approx(truth, rel=1e-6)
    assert cost(6) == pytest.approx(truth, rel=0.02)
    if 1 < horizon < math.inf:
        assert abs(cost(n, momentum=0.5) / truth - 1) > 0.01  # must fail


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
