"""``redraw`` against every minibatch of a tiny data set; its standard error against its own spread;
what it leaves.
"""

from itertools import combinations, count, permutations, product, repeat

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from sketchvar.analysis import noise
from sketchvar.analysis.probe import Probe
from sketchvar.estimators import Gaussian, Measured, sketch_linears
from sketchvar.estimators.seeds import fold, generator

BOUND = 4.5  # standard errors; a true variance is further off for 7 of 10⁶ seeds
N, S = 7, 3


def data():
    g = generator(5)
    size = torch.randn(
        N, 1, generator=g, dtype=torch.float64
    ).exp()  # heavy tails, as gradients have
    return size * torch.randn(N, 4, generator=g, dtype=torch.float64), torch.randn(
        N, 2, generator=g, dtype=torch.float64
    )


def linear():
    torch.manual_seed(2)
    return nn.Linear(4, 2, dtype=torch.float64)


def loss(model, batch):
    x, y = batch
    return F.mse_loss(model(x), y)


def gradient(model, rows):
    x, y = data()
    model.zero_grad()
    loss(model, (x[list(rows)], y[list(rows)])).backward()
    return model.weight.grad.flatten().clone()


def variance_over(model, batches):
    """Σ of the variances of all entries over every one of these equally likely minibatches."""
    return torch.stack([gradient(model, rows) for rows in batches]).var(0, correction=0).sum()


def random_batches(replacement, seed):
    x, y = data()
    for i in count():
        g = generator(fold(seed, i))
        rows = (
            torch.randint(N, (S,), generator=g)
            if replacement
            else torch.randperm(N, generator=g)[:S]
        )
        yield x[rows], y[rows]


def test_sample_variance_and_standard_error_are_those_of_the_stacked_gradients():
    model, x = linear(), data()[0]
    batches = [(x[[i, j]], data()[1][[i, j]]) for i, j in product(range(3), repeat=2)]
    found = noise.redraw(model, loss, batches, len(batches))["weight"]
    stacked = torch.stack([gradient(model, rows) for rows in product(range(3), repeat=2)])
    torch.testing.assert_close(found.value, stacked.var(0).sum(), rtol=1e-12, atol=0)
    gaps = torch.stack(
        [(g - stacked[:i].mean(0)).square().sum() for i, g in enumerate(stacked) if i]
    )
    torch.testing.assert_close(found.stderr, gaps.std() / len(stacked) ** 0.5, rtol=1e-12, atol=0)
    assert found.count == len(batches)


@pytest.mark.parametrize("replacement", [True, False])
def test_against_every_minibatch(replacement):
    """With and without replacement; must fail: the other way of drawing, which is the factor
    1 − S/N apart.
    """
    model = linear()
    ways = {True: product(range(N), repeat=S), False: combinations(range(N), S)}
    truth = {way: variance_over(model, batches) for way, batches in ways.items()}
    found = noise.redraw(model, loss, random_batches(replacement, seed=1), 1000)["weight"]
    assert found.z(truth[replacement]).abs() < BOUND
    assert found.z(truth[not replacement]).abs() > BOUND


def test_the_finite_factor_is_exact_over_every_minibatch():
    """The form by example, averaged over every minibatch without replacement, times 1 − S/N, is the
    variance of all.
    """
    model = linear()
    batches = list(combinations(range(N), S))
    forms = []
    for rows in batches:
        with Probe(model) as probe:
            gradient(model, rows)
        (layer,) = probe.read().values()
        forms.append(noise.by_example(layer.example_sq, layer.moments.C))
    average, truth = torch.stack(forms).mean(), variance_over(model, batches)
    torch.testing.assert_close(average * (1 - S / N), truth, rtol=1e-12, atol=0)
    assert abs(average / truth - 1) > 0.5  # must fail: without the factor


def test_batches_of_one_epoch_vary_as_if_the_data_had_no_end():
    """Over every order of six examples dealt in three batches; the factor 1 − S/N does not show."""
    model = linear()
    g = {rows: gradient(model, rows) for rows in combinations(range(6), 2)}
    orders = [
        [tuple(sorted(order[i : i + 2])) for i in (0, 2, 4)] for order in permutations(range(6))
    ]
    within = torch.stack(
        [torch.stack([g[rows] for rows in order]).var(0).sum() for order in orders]
    ).mean()
    independent = torch.stack(list(g.values())).var(0, correction=0).sum()
    torch.testing.assert_close(within * (1 - 2 / 6), independent, rtol=1e-12, atol=0)


@pytest.mark.parametrize("heavy", [False, True])
def test_standard_error_is_the_spread_of_the_sample_variance(heavy):
    """500 samples of 60 draws: root mean square error over the standard error. Must fail: 1.4 times
    too small.
    """
    g = generator(3)
    spread = noise.Spread()
    for _ in range(60):
        draw = torch.randn(500, 10, generator=g, dtype=torch.float64)
        if heavy:
            draw = draw * torch.randn(500, 1, generator=g, dtype=torch.float64).mul(0.4).exp()
        spread.add({str(i): vector for i, vector in enumerate(draw)})
    found = list(spread.variance().values())
    truth = 10 * (torch.tensor(2 * 0.4**2).exp() if heavy else 1)
    error = torch.stack([v.value - truth for v in found]).square().mean().sqrt()
    claimed = torch.stack([v.stderr for v in found]).square().mean().sqrt()
    assert 0.9 < claimed / error < 1.25
    assert not 0.9 < claimed / 2**0.5 / error < 1.25


def test_narrow_gradients_are_averaged_in_float32():
    spread = noise.Spread()
    for value in (256.0, 257.0, 258.0, 257.0):  # bfloat16 cannot tell means of these apart
        spread.add({"a": torch.tensor([value]).bfloat16()})
    (found,) = spread.variance().values()
    stacked = torch.tensor([256.0, 256.0, 258.0, 256.0])  # as bfloat16 rounds them
    torch.testing.assert_close(found.value, stacked.var().double(), rtol=1e-4, atol=0)


def test_nothing_remains():
    """Weights, gradients, batch norm's statistics, buffers that a forward replaces, and the
    generator.
    """

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen = self.seen + 1
            return x

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), Counting(), nn.Dropout(0.5), nn.Linear(5, 2)
    )
    batch = (torch.randn(6, 4), torch.randn(6, 2))
    loss(model, batch).backward()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    held = {name: p.grad for name, p in model.named_parameters()}
    values = {name: p.grad.clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    noise.redraw(model, loss, repeat(batch), 5)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(
        p.grad is held[name] and torch.equal(p.grad, values[name])
        for name, p in model.named_parameters()
    )
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(FloatingPointError):
        noise.redraw(model, lambda *a: loss(*a) * torch.inf, repeat(batch), 5)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is held[name] for name, p in model.named_parameters())


def test_dropout_belongs_to_the_variance_and_to_the_form_by_example():
    """One example repeated: masks are all there is. Each copy has its own, so the form by example
    sees them too.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)).double()
    x, y = (t[:1].expand(40, -1) for t in data())
    forms = []
    for i in range(200):
        torch.manual_seed(i)
        with noise.unchanged(model), Probe(model) as probe:
            loss(model, (x, y)).backward()
        (layer,) = probe.read().values()
        forms.append(noise.by_example(layer.example_sq, layer.moments.C))
    form = Measured(torch.stack(forms).mean(), torch.stack(forms).std() / 200**0.5, 200)
    found = noise.redraw(model, loss, repeat((x, y)), 600)["1.weight"]
    apart = (found.value - form.value) / torch.hypot(found.stderr, form.stderr)
    assert apart.abs() < BOUND
    assert ((found.value - 1.25 * form.value) / found.stderr).abs() > BOUND
    still = noise.redraw(model.eval(), loss, repeat((x, y)), 5)["1.weight"]
    assert still.value == 0


def test_a_sketched_model_adds_its_estimators_variance():
    """On one batch the closed form itself; over batches its average on top of the minibatch
    variance.
    """
    model, g = linear(), generator(1)
    x = torch.randn(N, 8, 4, generator=g, dtype=torch.float64)
    sign = torch.tensor([1, -1, 1, -1, 1, -1, 1])[:, None, None]
    batches = list(
        zip(x, 3 * sign * x[..., :2], strict=True)
    )  # gradients of two directions, of much the same size
    closed = []
    for batch in batches:
        with Probe(model) as probe:
            loss(model, batch).backward()
        closed.append(Gaussian(0.5).variance(probe.read()[""].moments))
    plain = (
        noise.redraw(model, loss, batches, N)["weight"].value * (N - 1) / N
    )  # over these, equally likely
    sketch_linears(model, Gaussian(0.5))
    one = noise.redraw(model, loss, repeat(batches[0]), 500)["weight"]
    assert one.z(closed[0]).abs() < BOUND
    assert one.z(closed[0] * 1.5).abs() > BOUND
    mixed = (batches[int(torch.randint(N, (), generator=g))] for _ in count())
    both = noise.redraw(model, loss, mixed, 500)["weight"]
    assert both.z(plain + torch.stack(closed).mean()).abs() < BOUND
    assert (
        both.z(torch.stack(closed).mean()).abs() > BOUND
    )  # must fail: the estimator's variance alone


@pytest.mark.parametrize("draws", [2, 1, 0, -1])
def test_too_few_draws(draws):
    with pytest.raises(ValueError, match=f"need 3 draws or more, got draws={draws}"):
        noise.redraw(linear(), loss, repeat(data()), draws)


def test_a_loader_that_ends_early_is_refused_before_any_work_where_it_knows_its_length():
    calls = []

    def counted(model, batch):
        calls.append(1)
        return loss(model, batch)

    for loader in ([data()] * 4, DataLoader(TensorDataset(*data()), batch_size=2)):
        with pytest.raises(
            ValueError,
            match="the loader gives 4 batches, not 5; ask for fewer draws or make it longer",
        ):
            noise.redraw(linear(), counted, loader, 5)
    assert not calls
    shown = []
    with pytest.raises(ValueError, match="the loader gives 4 batches, not 5"):
        noise.redraw(linear(), counted, (data() for _ in range(4)), 5, shown.append)
    assert [known["weight"].count for known in shown] == [3, 4]  # what was measured is not lost


def test_loss_or_gradient_that_is_not_finite():
    model, batches = linear(), [data()] * 3 + [(data()[0], data()[1] * torch.nan)] + [data()]
    shown = []
    with pytest.raises(FloatingPointError, match="the loss is nan at draw 3; no variance"):
        noise.redraw(model, loss, batches, 5, shown.append)
    assert len(shown) == 1
    with pytest.raises(
        FloatingPointError,
        match="the gradient of weight is not finite at draw 0, though the loss is",
    ):
        noise.redraw(
            model,
            lambda model, _: model.weight.sub(model.weight.detach()).abs().pow(0.5).sum(),
            batches,
            3,
        )


def test_frozen_parameters_and_those_that_no_loss_reached_are_missing():
    model = nn.ModuleDict(
        {name: nn.Linear(4, 2, dtype=torch.float64) for name in ("used", "frozen", "unused")}
    )
    model["frozen"].requires_grad_(False)
    x, y = data()
    found = noise.redraw(
        model,
        lambda model, batch: F.mse_loss(
            model["used"](batch[0]) + model["frozen"](batch[0]), batch[1]
        ),
        [(x[i : i + 2], y[i : i + 2]) for i in range(5)],
        5,
    )
    assert set(found) == {"used.weight", "used.bias"}


def test_a_parameter_that_only_some_batches_reach_counts_as_zero_in_the_others():
    model, (x, y) = linear(), data()

    def sometimes(model, batch):
        return loss(model, batch[:2]) if batch[2] else model.bias.sum()

    found = noise.redraw(model, sometimes, [(x, y, i % 2 == 0) for i in range(6)], 6)["weight"]
    g = gradient(model, range(N))
    stacked = torch.stack([g * (i % 2 == 0) for i in range(6)])
    torch.testing.assert_close(found.value, stacked.var(0).sum(), rtol=1e-12, atol=0)


def test_a_data_loader_with_replacement():
    sampler = RandomSampler(range(N), replacement=True, num_samples=600, generator=generator(0))
    loader = DataLoader(TensorDataset(*data()), batch_size=S, sampler=sampler)
    found = noise.redraw(linear(), loss, loader, 200)["weight"]
    assert found.z(variance_over(linear(), product(range(N), repeat=S))).abs() < BOUND
