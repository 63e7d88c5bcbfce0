"""What noise costs: on a quadratic whose every outcome is enumerated, and through the public
function.
"""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sketchvar.analysis.cost import CURVATURES, cost
from sketchvar.analysis.cost.measure import VECTORS, needed_bytes
from sketchvar.analysis.cost.table import price, quotient
from sketchvar.analysis.noise.cost import draw_noise, endless
from sketchvar.analysis.noise.curvature import Hessian
from sketchvar.analysis.noise.draw import Ruler, Sketched, only
from sketchvar.analysis.noise.horizon import Dynamics
from sketchvar.analysis.noise.metric import Steps
from sketchvar.analysis.noise.objective import Objective
from sketchvar.estimators import Choice, CountSketch, UniformRows

BOUND = 4.5  # standard errors; 7 of 10⁶ right formulas are outside
P, Q, N = 3, 2, 4


def data(seed: int, n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=g, dtype=torch.float64) + 0.5 for d in (P, Q))


def squared(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def weights(g: torch.Tensor) -> torch.Tensor:
    """G (p × q) as autograd lays a linear layer's gradient out, flat."""
    return g.T.flatten()


@pytest.fixture
def as_often(monkeypatch):
    """The minibatch no more often than an estimator: tests need the draws of the latter."""
    monkeypatch.setattr("sketchvar.analysis.noise.cost.OFTEN", 1)


@pytest.fixture(scope="module")
def quadratic():
    """A linear layer without a bias under squared loss, batches a, b and c over and over: draws,
    and every expectation by hand.
    """
    torch.manual_seed(0)
    model = nn.Linear(P, Q, bias=False).double()
    a, b, c = (data(seed) for seed in range(3))
    objective = Objective(model, squared)
    sizes = torch.linspace(0.1, 0.6, P * Q, dtype=torch.float64)
    way, steps = Hessian(objective), Steps(sizes, 0.5)
    ruler = Ruler(objective, way, way, steps, nodes=P * Q)
    chosen = Sketched(Choice.of(UniformRows(0.5)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sketchvar.analysis.noise.cost.OFTEN", 1)
        found = draw_noise(ruler, endless([a, b, c]), [chosen], 50, seed=1, layers=True)
    rows = price(found.totals, found.spectra, Dynamics(0.5), (1, 5, math.inf))
    H = 2 / (N * Q) * torch.kron(torch.eye(Q, dtype=torch.float64), c[0].T @ c[0])
    pairs = [(x, 2 / (N * Q) * (x @ model.weight.detach().T - y)) for x, y in (a, b)]
    exact = [weights(x.T @ y) for x, y in pairs]
    x, y = pairs[0]
    outcomes = [
        weights(2 * x[list(kept)].T @ y[list(kept)]) - exact[0]
        for kept in itertools.combinations(range(N), N // 2)
    ]
    return rows, found, H, sizes, (exact[0] - exact[1]) / 2**0.5, outcomes


def covariance_cost(H, sizes, noise, steps, beta=0.5):
    """½ tr(H C) after so many steps of w with its momentum, C by the whole recursion."""
    eye, D = torch.eye(len(sizes), dtype=torch.float64), torch.diag(sizes)
    top = torch.cat([eye - (1 - beta) * D @ H, -beta * D], 1)
    A = torch.cat([top, torch.cat([(1 - beta) * H, beta * eye], 1)])
    b = torch.cat([-(1 - beta) * D @ noise, (1 - beta) * noise])
    C = torch.zeros(len(A), len(A), dtype=torch.float64)
    for _ in range(steps):
        C = A @ C @ A.T + torch.outer(b, b)
    return float(0.5 * torch.trace(H @ C[: len(H), : len(H)]))


@pytest.mark.parametrize("horizon, steps", [(1, 1), (5, 5), (math.inf, 3000)])
def test_costs_are_those_of_every_outcome(quadratic, horizon, steps):
    rows, _, H, sizes, minibatch, outcomes = quadratic
    here = rows[rows["horizon"] == horizon]
    found = here[here["noise"] == "minibatch"].dropna()
    truth = covariance_cost(H, sizes, minibatch, steps)  # always the same batches: no error
    np.testing.assert_allclose(found["cost"], truth, rtol=1e-5)
    np.testing.assert_allclose(found["variance"], float(minibatch.square().sum()))
    np.testing.assert_allclose(found["metric"], float(sizes @ minibatch.square()))
    sketched = here[here["noise"] == "uniform-rows"]
    for column, truth in (
        ("cost", np.mean([covariance_cost(H, sizes, each, steps) for each in outcomes])),
        ("variance", float(np.mean([each.square().sum() for each in outcomes]))),
        ("metric", float(np.mean([sizes @ each.square() for each in outcomes]))),
    ):
        error = sketched[column].std() / len(sketched) ** 0.5
        z = (sketched[column].mean() - truth) / error
        assert abs(z) < BOUND
        assert abs(sketched[column].mean() - 2 * truth) > BOUND * error  # must fail


def test_the_only_layer_has_all_of_the_cost(quadratic):
    _, found, *_ = quadratic
    one = found.totals.set_index(["noise", "draw"])
    alone = found.layers.set_index(["noise", "draw"])
    for column in ("variance", "metric", "form"):
        np.testing.assert_allclose(alone[column], one.loc[alone.index, column], rtol=1e-8)
    np.testing.assert_allclose(one["apart"], one["form"], rtol=1e-8)


def test_the_mean_of_all_gradients_has_a_spectrum_too(quadratic):
    found, sizes = quadratic[1], quadratic[3]
    power = found.spectra.groupby("noise")["weight"].sum()["mean of the gradients"] / 50
    torch.manual_seed(0)
    weight = nn.Linear(P, Q, bias=False).double().weight.detach()
    g, h = (weights(2 / (N * Q) * x.T @ (x @ weight.T - y)) for x, y in (data(0), data(1)))
    assert power == pytest.approx(float(sizes @ ((g + h) / 2).square()))


def deep(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(P, 6), nn.Tanh(), nn.Linear(6, Q)).double()


def test_random_signs_leave_the_diagonal_blocks():
    """Mean over signs, against the blocks one by one."""
    model, batch = deep(), data(0)
    objective = Objective(model, squared)
    way = Hessian(objective)
    ruler = Ruler(objective, way, way, Steps(torch.full((objective.size,), 0.3).double()))
    noise = objective.gradient(data(1), 0)
    before = noise.clone()
    found = torch.tensor([ruler.apart(noise, [batch], seed) for seed in range(300)])
    assert torch.equal(noise, before)
    blocks = objective.blocks.values()
    truth = sum(ruler.form(only(noise, [place]), [batch], 0) for place in blocks)
    error = found.std() / 300**0.5
    assert abs(found.mean() - truth) < BOUND * error
    together = way.form(0.3 * noise, [batch], 0)
    assert abs(found.mean() - together) > BOUND * error  # must fail: coherent


def test_an_estimators_noise_is_in_its_weights_alone_and_unbiased():
    model, batch = deep(), data(0, 16)
    objective = Objective(model, squared)
    plain, drawn_ = objective.gradient(batch, 0), []
    for seed in range(150):
        with objective.sketched(CountSketch(0.25), seed) as done:
            drawn_.append(objective.gradient(batch, 0) - plain)
    places = objective.weights_of(done.converted)
    inside = torch.zeros(objective.size, dtype=torch.bool)
    for place in places.values():
        inside[place] = True
    noise = torch.stack(drawn_)
    assert (noise[:, ~inside].abs() < 1e-12).all() and sorted(places) == ["0", "2"]
    z = noise.mean(0)[inside] / (noise.std(0)[inside] / 150**0.5)
    assert z.abs().max() < BOUND
    across = (noise[:, places["0"]].sum(1), noise[:, places["2"]].sum(1))
    assert abs(np.corrcoef(*across)[0, 1]) < 0.35  # a seed for each layer


def test_one_seed_makes_layers_err_together(as_often):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = (nn.Linear(P, Q, bias=False).double() for _ in range(2))

        def forward(self, x):
            return self.a(x) + self.b(x.clone())  # a copy: not the same tensor, so not shared

    rows = {}
    for one in (False, True):
        objective = Objective(Twice(), squared)
        way = Hessian(objective)
        ruler = Ruler(objective, way, way, Steps(torch.ones(objective.size, dtype=torch.float64)))
        chosen = Sketched(Choice.of(UniformRows(0.25)), one)
        source = endless([data(i, 8) for i in range(3)])
        found = draw_noise(ruler, source, [chosen], 60, spectra=0).totals
        rows[one] = found[found["noise"] == "uniform-rows"][["form", "apart"]].mean()
    # the two errors are equal: their square is 4, where it would be 2; apart they cost the same
    assert rows[True]["form"] / rows[False]["form"] == pytest.approx(2, rel=0.35)
    assert rows[True]["apart"] / rows[False]["apart"] == pytest.approx(1, rel=0.35)


def trained(steps: int = 20):
    model = deep(1).float()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    batches = [tuple(t.float() for t in data(i, 8)) for i in range(60)]
    for batch in batches[:steps]:
        optimizer.zero_grad()
        squared(model, batch).backward()
        optimizer.step()
    return model, optimizer, batches


def test_memory_is_told_beforehand():
    model = nn.Sequential(nn.Linear(P, Q).double(), nn.Linear(Q, 2).double().requires_grad_(False))
    assert needed_bytes(model) == VECTORS * 8 * (P * Q + Q)
    assert needed_bytes(model, signals=3) == (VECTORS + 3) * 8 * (P * Q + Q)


def test_the_public_function():
    model, optimizer, batches = trained()
    before = torch.get_rng_state(), [p.detach().clone() for p in model.parameters()]
    found = cost(
        model,
        squared,
        batches,
        ["uniform-rows:0.25", CountSketch(0.25), "exact"],
        optimizer,
        horizon=(1, 10, math.inf),
        draws=4,
        layers=True,
        one_seed=["uniform-rows:0.25"],
        seed=3,
    )
    assert torch.equal(before[0], torch.get_rng_state())
    assert all(map(torch.equal, before[1], model.parameters()))
    table = found.table
    assert list(table) == (
        ["estimator", "rate", "kept_bytes", "share", "horizon"]
        + [f"{n}_ratio{e}" for n in ("variance", "metric", "cost") for e in ("", "_stderr")]
        + ["draws", "negative", "unstable", "family"]
    )
    assert len(table) == 9 and set(table["horizon"]) == {1, 10, math.inf}
    exact = table[table["estimator"] == "exact"]
    assert (exact["cost_ratio"] == 0).all() and (exact["share"] == 1).all()
    rows = table[table["estimator"] == "uniform-rows"]
    assert (rows["share"] < 0.5).all() and (rows["cost_ratio_stderr"] > 0).all()
    last = table[np.isinf(table["horizon"]) & (table["estimator"] != "exact")]
    assert (last["cost_ratio"] / last["metric_ratio"] - 1).abs().max() < 0.6
    assert set(found.layers["layer"]) == {"0", "2"}
    assert set(found.coherence["seeds"]) == {"own", "one"}
    again = cost(model, squared, batches, ["uniform-rows:0.25"], optimizer, 1, draws=4, seed=3)
    with pytest.raises(ValueError, match="only one step was measured"):
        again.over([10])
    other = found.over([10, 20], schedule=[0.5] * 20)
    assert set(other["horizon"]) == {10, 20}
    assert again.layers.empty and set(again.table["horizon"]) == {1}
    names = ["variance_ratio", "metric_ratio"]  # the same seed, the same numbers
    assert again.table.iloc[0][names].equals(rows.iloc[0][names])
    # how far a kick goes depends on those before it
    assert again.table["cost_ratio"].item() == pytest.approx(rows["cost_ratio"].iloc[0], rel=0.01)


def test_the_three_curvatures_agree():
    model, optimizer, batches = trained(60)
    found = {}
    for way in ("kicks", "gauss-newton", "hessian"):
        rows = cost(
            model,
            squared,
            batches,
            ["uniform-rows:0.25"],
            optimizer,
            1,
            curvature=way,
            layers=False,
        ).table
        found[way] = rows["cost_ratio"].item(), rows["cost_ratio_stderr"].item()
    assert found["kicks"][0] == pytest.approx(found["hessian"][0], rel=0.05)
    gap = abs(found["gauss-newton"][0] - found["hessian"][0])
    assert gap < 3 * math.hypot(found["gauss-newton"][1], found["hessian"][1])


def quotients(draws, often, together, repeats=700):
    """Ratios of correlated draws, of which the lower has more, and the errors that are said."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(repeats):
        below = rng.gamma(4.0, size=draws * often)
        shared = below[:draws] if together else rng.gamma(4.0, size=draws)
        above = 0.5 * (shared + rng.gamma(2.0, size=draws))
        frames = [pd.DataFrame({"draw": range(len(x)), "form": x}) for x in (above, below)]
        found.append(quotient(*frames, "form"))
    return np.array(found)


@pytest.mark.parametrize("often", [1, 3])
def test_the_error_of_a_quotient_knows_that_draws_share_batches(often):
    """Mean square of the errors against the spread of the ratios; and the control: were the draws
    independent, the spread would be larger than is said.
    """
    found = quotients(40, often, together=True)
    said, spread = (found[:, 1] ** 2).mean(), found[:, 0].var()
    assert abs(said / spread - 1) < 4 * (2 / len(found)) ** 0.5 + 0.02  # of first order in 1/draws
    apart = quotients(40, often, together=False)[:, 0].var()
    assert apart > said * (1.2 + 4 * (2 / len(found)) ** 0.5)


@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_other_curvatures_are_of_the_same_draws(factor, monkeypatch):
    """Of a linear model under squared loss all are one; and the control, where one is not."""

    class Steeper(Hessian):
        def form(self, *args):
            return factor * super().form(*args)

    monkeypatch.setitem(CURVATURES, "hessian", Steeper)
    torch.manual_seed(0)
    model, batches = nn.Linear(P, Q).double(), [data(seed, 8) for seed in range(12)]
    given = {"horizon": 1, "draws": 4, "curvature": "gauss-newton", "agree": ["hessian"]}
    found = cost(model, squared, batches, "uniform-rows:0.5", **given)
    table = found.agreement.set_index("noise")
    assert table.loc["minibatch", "over_first"] == pytest.approx(factor)
    assert table.loc["uniform-rows", "over_first"] == pytest.approx(factor)
    assert table["over_first_stderr"].max() < 1e-9
    assert table["cost_ratio"].to_numpy() == pytest.approx(table["first"].to_numpy())


def test_what_is_clipped_or_scaled():
    model, _, batches = trained()
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.5)
    plain = cost(
        model, squared, batches, ["uniform-rows:0.25"], sgd, (1, 50), draws=4, nodes=3
    ).table
    little = cost(
        model, squared, batches, ["uniform-rows:0.25"], sgd, (1, 50), draws=4, nodes=3, clip=1e-3
    ).table
    # one step: a factor that cancels; fifty: shorter steps see less curvature
    assert little["cost_ratio"][0] == pytest.approx(plain["cost_ratio"][0], rel=1e-2)
    assert little["cost_ratio"][1] != pytest.approx(plain["cost_ratio"][1], rel=1e-2)

    class Scaler:
        def get_scale(self) -> float:
            return 1024.0

    scaled = cost(
        model,
        squared,
        batches,
        ["uniform-rows:0.25"],
        sgd,
        (1, 50),
        draws=4,
        nodes=3,
        scaler=Scaler(),
    ).table
    np.testing.assert_allclose(scaled["cost_ratio"], plain["cost_ratio"], rtol=1e-3)


def test_steps_that_would_diverge_are_counted_at_the_edge():
    """A learning rate of ten times the stable one: the cost stays finite, and the share is told."""
    model, _, batches = trained()
    wild = torch.optim.SGD(model.parameters(), 30.0)
    rows = cost(model, squared, batches, ["uniform-rows:0.25"], wild, (1, 50, math.inf), draws=4)
    table = rows.table
    assert np.isfinite(table["cost_ratio"]).all() and (table["unstable"].dropna() > 0.2).all()


def test_few_draws_have_no_error_bar():
    model, optimizer, batches = trained()
    with pytest.warns(UserWarning, match="3 draws give no standard errors; 4 do"):
        rows = cost(model, squared, batches, ["uniform-rows:0.25"], optimizer, 1, draws=3).table
    assert rows["cost_ratio_stderr"].isna().all() and rows["cost_ratio"].notna().all()


def test_bad_input():
    model, optimizer, batches = trained()
    few = ["uniform-rows:0.25"]
    for wrong, what in (
        ({"estimators": []}, "needs an estimator"),
        ({"draws": 0}, "draws must be 1 or more"),
        ({"curvature": "kick"}, "did you mean 'kicks'"),
        ({"optimizer": None}, "a horizon of more than one step needs the optimizer"),
        ({"optimizer": torch.optim.Adam(model.parameters())}, "Adam has no state yet"),
        ({"optimizer": Steps(torch.ones(3))}, "rate must have .* entries"),
        ({"batches": batches[:2]}, "a draw needs 3 batches"),
        ({"include": "nothing"}, "matches no layer"),
        ({"estimators": ["optimal-rows:0.1"]}, "oracle"),
        ({"estimators": ["uniform-row:0.1"]}, "unknown estimator"),
        ({"horizon": 0}, "a horizon is a whole number of steps"),
    ):
        given = {"batches": batches, "estimators": few, "optimizer": optimizer, "draws": 4} | wrong
        with pytest.raises(ValueError, match=what):
            cost(model, squared, **given)
    plain = cost(model, squared, batches, few, None, 1, draws=4).table
    assert plain["metric_ratio"].item() == pytest.approx(plain["variance_ratio"].item())


def test_kicks_serve_where_there_is_no_gauss_newton():
    model, optimizer, batches = trained()

    def own(m, b):  # nothing of torch.nn.functional
        return (m(b[0]) - b[1]).square().mean()

    ours = cost(
        model, own, batches, ["uniform-rows:0.25"], optimizer, (1, 10), draws=4, nodes=4
    ).table
    theirs = cost(
        model, squared, batches, ["uniform-rows:0.25"], optimizer, (1, 10), draws=4, nodes=4
    ).table
    np.testing.assert_allclose(ours["cost_ratio"], theirs["cost_ratio"], rtol=0.5)
    assert (theirs["negative"].dropna() < 1e-3).all()
