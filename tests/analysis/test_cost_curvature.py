"""Curvature along a direction, three ways: against Jacobians, Hessians and quadratics that are
known.
"""

import math
import os

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev
from torch.nn import functional as F

from sketchvar.analysis.noise.curvature import Hessian, Kicks
from sketchvar.analysis.noise.gauss_newton import GaussNewton
from sketchvar.analysis.noise.inner import PIECE, inner
from sketchvar.analysis.noise.objective import Objective
from sketchvar.analysis.tasks import find_task
from sketchvar.estimators import CountSketch, UniformRows, sketch_linears

WAYS = [Kicks, Hessian, GaussNewton]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def small(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


def explicit(model: nn.Module, of) -> torch.Tensor:
    """A derivative by all weights, (..., N), of what ``of`` makes of the parameters."""
    parameters = dict(model.named_parameters())
    parts = jacrev(of)(parameters)
    return torch.cat([parts[n].flatten(-p.ndim) for n, p in parameters.items()], -1)


def whole_hessian(model: nn.Module, value) -> torch.Tensor:
    parameters = dict(model.named_parameters())
    blocks = hessian(value)(parameters)
    return torch.cat(
        [
            torch.cat([blocks[a][b].reshape(p.numel(), -1) for b in parameters], 1)
            for a, p in parameters.items()
        ]
    )


@pytest.mark.parametrize("way", WAYS)
def test_all_agree_where_the_model_is_linear_and_the_loss_squared(way):
    model, x, y = nn.Linear(4, 2, bias=False).double(), normal(9, 4), normal(9, 2, seed=1)
    objective = Objective(model, lambda m, b: F.mse_loss(m(b[0]), b[1]))
    u = normal(8, seed=2)
    truth = (2 / 18) * torch.kron(torch.eye(2, dtype=torch.float64), x.T @ x) @ u
    curvature = way(objective)
    found = curvature.form(u, [(x, y)], 0)
    assert found == pytest.approx(float(u @ truth), rel=1e-9)
    assert found != pytest.approx(1.05 * float(u @ truth), rel=1e-3)  # must fail
    torch.testing.assert_close(curvature.product(u, [(x, y)], 0), truth, rtol=1e-8, atol=1e-10)
    half = [(x[:3], y[:3]), (x[3:6], y[3:6]), (x[6:], y[6:])]
    assert curvature.form(u, half, 0) == pytest.approx(float(u @ truth), rel=1e-9)  # a mean


def test_gauss_newton_is_the_variance_under_the_models_own_probabilities():
    model, x = small(), normal(7, 4)
    y = torch.tensor([0, 1, 2, -100, 1, 0, 2])  # one is ignored
    objective = Objective(model, lambda m, b: 0.5 * F.cross_entropy(m(b[0]), b[1]))
    u = normal(objective.size, seed=3)
    J = explicit(model, lambda p: functional_call(model, p, (x,)))
    chances, moves = model(x).softmax(-1).detach(), (J @ u).detach()
    spread = (chances * moves**2).sum(1) - (chances * moves).sum(1) ** 2
    truth = float(0.5 * spread[y >= 0].mean())
    gauss_newton = GaussNewton(objective)
    assert gauss_newton.form(u, [(x, y)], 0) == pytest.approx(truth, rel=1e-10)
    assert truth != pytest.approx(float(0.5 * spread.mean()), rel=0.05)  # must fail
    product = gauss_newton.product(u, [(x, y)], 0)
    middle = torch.diag_embed(chances) - chances[:, :, None] * chances[:, None]
    whole = torch.einsum("tin,tij,tjm->nm", J, middle, J).detach() * 0.5
    kept = whole - 0.5 * (J[3].T @ middle[3] @ J[3]).detach()
    torch.testing.assert_close(product, kept @ u / 6)


def test_the_graph_is_made_again_where_weights_or_batches_are_others():
    model, x, y = small(), normal(7, 4), torch.tensor([0, 1, 2, 1, 1, 0, 2])
    objective = Objective(model, lambda m, b: F.cross_entropy(m(b), y))
    way, u = GaussNewton(objective), normal(objective.size, seed=3)
    first = way.form(u, [x], 0)
    assert way.form(u, [x], 0) == first
    with objective.moved(0.5 * u):
        moved = way.form(u, [x], 0)
        assert moved == GaussNewton(objective).form(u, [x], 0) != first
    assert way.form(u, [x], 0) == pytest.approx(first, rel=1e-12)
    other = GaussNewton(objective).form(u, [2 * x], 0)
    assert way.form(u, [2 * x], 0) == other != pytest.approx(first, rel=0.01)


def test_other_losses_by_their_outputs():
    model, x = small(2), normal(6, 4)
    u = normal(sum(p.numel() for p in model.parameters()), seed=3)
    J = explicit(model, lambda p: functional_call(model, p, (x,))).detach()
    y = (normal(6, 2, seed=4) > 0).double()
    p = model(x).sigmoid().detach()

    def binary(m, b):
        return F.binary_cross_entropy_with_logits(m(x), y)

    truth = float(((J @ u) ** 2 * p * (1 - p)).mean())
    assert GaussNewton(Objective(model, binary)).form(u, [0], 0) == pytest.approx(truth)

    def masked(m, b):  # no reduction, two terms: the scale of each is its own
        each = F.mse_loss(m(x), y, reduction="none")
        return each[2:].sum() + 3 * F.mse_loss(input=m(x), target=y)

    moves = (J @ u) ** 2
    truth = float(2 * moves[2:].sum() + 6 * moves.mean())
    assert GaussNewton(Objective(model, masked)).form(u, [0], 0) == pytest.approx(truth)
    with pytest.raises(ValueError, match="needs a loss made by cross_entropy"):
        GaussNewton(Objective(model, lambda m, b: m(x).square().mean())).form(u, [0], 0)


def test_kicks_and_products_are_the_whole_hessian():
    model, x, y = small(), normal(7, 4), torch.tensor([0, 1, 2, 0, 1, 0, 2])
    objective = Objective(model, lambda m, b: F.cross_entropy(m(x), y))
    u = normal(objective.size, seed=3)
    H = whole_hessian(model, lambda p: F.cross_entropy(functional_call(model, p, (x,)), y))
    truth = float((u @ H @ u).detach())
    assert Hessian(objective).form(u, [0], 0) == pytest.approx(truth, rel=1e-10)
    torch.testing.assert_close(Hessian(objective).product(u, [0], 0), (H @ u).detach())
    kicks = Kicks(objective)
    values, directions = torch.linalg.eigh(H.detach())
    up, down = directions[:, -1], directions[:, 0]
    assert kicks.form(up, [0], 0) == pytest.approx(float(values[-1]), rel=0.02)
    assert kicks.form(down, [0], 0) == pytest.approx(float(values[0]), rel=0.02) and values[0] < 0
    truth = (H @ u).detach()
    found = kicks.product(u, [0], 0)
    torch.testing.assert_close(found, truth, rtol=0.02, atol=0.01 * float(truth.norm()))
    assert kicks.form(0 * u, [0], 0) == 0 and kicks.product(0 * u, [0], 0).sum() == 0


def test_a_kick_that_breaks_the_loss_is_halved():
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 1.0)

    def walled(m, b):
        return (m.weight**2).sum() + torch.where(m.weight.abs() > 1.3, torch.inf, 0.0).sum()

    kicks = Kicks(Objective(model, walled))
    kicks.reach = 1.0
    with pytest.warns(UserWarning, match="not finite|half of it is taken"):
        assert kicks.form(torch.ones(1, dtype=torch.float64), [0], 0) == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["stdlib-lm", "cifar10/vit"])
def test_gauss_newton_and_kicks_of_tasks(name):
    """In float32 and through attention."""
    task = find_task(name, (("width", 16), ("depth", 1), ("heads", 2), ("batch_size", 4)))
    if name == "cifar10/vit" and not os.environ.get("SKETCHVAR_DATASETS"):
        pytest.skip("SKETCHVAR_DATASETS is not set")
    torch.manual_seed(0)
    objective = Objective(task.model(), task.loss)
    batch = [task.batch(0, 0)]
    u = 1e-3 * objective.gradient(batch[0], 0)
    hessian, kicks, gauss_newton = (way(objective) for way in (Hessian, Kicks, GaussNewton))
    truth = hessian.form(u, batch, 0)
    assert kicks.form(u, batch, 0) == pytest.approx(truth, rel=0.05)
    assert float(u @ kicks.product(u, batch, 0)) == pytest.approx(truth, rel=0.05)
    assert float(u @ gauss_newton.product(u, batch, 0)) == pytest.approx(
        gauss_newton.form(u, batch, 0), rel=1e-4
    )
    assert gauss_newton.form(u, batch, 0) > 0


@pytest.mark.parametrize("way", WAYS)
def test_dropout_is_the_same_at_both_ends(way):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 40), nn.Dropout(0.5), nn.Linear(40, 2)).double()
    x, y = normal(9, 4), normal(9, 2, seed=1)
    objective = Objective(model, lambda m, b: F.mse_loss(m(x), y))
    u = normal(objective.size, seed=2)
    curvature = way(objective)
    first, again, other = (curvature.form(u, [0], seed) for seed in (0, 0, 1))
    assert first == pytest.approx(again, rel=0.05) and first != pytest.approx(other, rel=1e-3)
    alone = Objective(nn.Sequential(model[0], nn.Identity(), model[2]), objective.loss)
    assert abs(first) < 20 * abs(way(alone).form(u, [0], 0))  # masks that differ would be no kick


def test_the_users_model_is_left_alone():
    model = small()
    sketch_linears(model, CountSketch(0.5))
    before, x = [p.clone() for p in model.parameters()], normal(8, 4)
    objective = Objective(model, lambda m, b: m(x).square().mean())
    plain = objective.gradient(None, 0)
    Kicks(objective).form(plain, [None], 0)
    with objective.sketched(UniformRows(0.5), 1) as done:
        assert list(done.converted) == ["0", "2"]
        drawn = objective.gradient(None, 0)
    assert all(p.grad is None for p in model.parameters())
    assert all(map(torch.equal, before, model.parameters()))
    assert type(model[0]).__name__ == "SketchedLinear"
    assert not torch.allclose(drawn, plain)
    torch.testing.assert_close(objective.gradient(None, 0), plain)


def test_one_seed_or_a_seed_per_layer_and_the_masks_of_the_plain_model():
    torch.manual_seed(0)
    same = nn.Linear(6, 6, bias=False).double()
    model = nn.Sequential(same, nn.Dropout(0.5), nn.Linear(6, 6, bias=False).double())
    x = normal(8, 6)
    rows: list[torch.Tensor] = []

    def loss(m, batch):
        h = m[0](x)
        rows.append(m[1](torch.ones(8, 6)))
        return m[2](h).square().mean()

    objective = Objective(model, loss)
    objective.gradient(None, 0)
    for one in (False, True):
        with objective.sketched(UniformRows(0.25), 5, one_seed=one):
            objective.gradient(None, 0)
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[2])


def test_bad_input():
    model, x = small(), normal(3, 4)
    with pytest.raises(ValueError, match=r"0\.weight is torch.bfloat16"):
        Objective(small().bfloat16(), lambda m, b: m(x).sum())
    with pytest.raises(ValueError, match="no trainable parameters"):
        Objective(small().requires_grad_(False), lambda m, b: m(x).sum())
    with pytest.raises(ValueError, match="does not depend on the model that it is given"):
        Objective(small(), lambda m, b: model(x).sum()).gradient(None, 0)
    with pytest.raises(FloatingPointError, match="the loss is inf"):
        Objective(model, lambda m, b: m(x).sum() + torch.inf).gradient(None, 0)


def test_inner_products_of_long_vectors_are_those_of_float64():
    size = 3 * PIECE + 17  # a last piece that is not whole
    a, b = torch.randn(2, size, generator=torch.Generator().manual_seed(0)) + 1
    exact = math.fsum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    in_float32 = float(torch.cumsum(a * b, 0, dtype=torch.float32)[-1])
    assert inner(a, b) == pytest.approx(exact, rel=1e-14)
    assert in_float32 != pytest.approx(exact, rel=1e-8)  # what a sum in float32 would give
