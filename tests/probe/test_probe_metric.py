"""Probe(metric=): numbers in the metric of an optimizer's step, against gradients of one example
after another.
"""

import copy

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sketchvar import noise
from sketchvar.analysis.noise.closed import example_sq
from sketchvar.analysis.noise.layer import pair_layer
from sketchvar.analysis.noise.table import COLUMNS, METRIC, read_batch, tabulate
from sketchvar.analysis.probe import Probe
from sketchvar.estimators import Moments, build, choices

CHOICES = ["gaussian", "countsketch", "norm-rows", "feature-rademacher", "rounding:2"]


class Shared(nn.Module):
    """One weight used twice in a pass."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        return self.linear(torch.tanh(self.linear(x)))


class Attention(nn.Module):
    """One input for query, key and value, and a layer with a weight of its own."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


MODELS = {
    "rows": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), (8, 6)),
    "sequences": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), (8, 40, 6)),
    "images": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 2)),
        (8, 2, 6, 6),
    ),
    "shared": (Shared, (8, 7, 6)),
    "attention": (Attention, (8, 7, 6)),
}
OPTIMIZERS = {
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
}


def loss_of(model, x):
    """The sum of the losses of the examples, which are of very different size."""
    size = torch.linspace(0.5, 2, len(x), dtype=x.dtype).view(-1, *[1] * (x.ndim - 1))
    return (model(x * size).sin() * 0.3).flatten(1).square().sum() / 8


def train(name, kind="Adam", steps=3):
    """A model in float64 and its optimizer after so many steps, and a batch."""
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model = make().double()
    optimizer = OPTIMIZERS[kind](model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, torch.randn(shape, dtype=torch.float64)).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, optimizer, torch.randn(shape, dtype=torch.float64)


def adam_weights(optimizer, p):
    """1/(√v̂ + ε) in the formulas of the paper."""
    state, group = optimizer.state[p], optimizer.param_groups[0]
    corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    return 1 / (corrected.sqrt() + group["eps"])


def gradients_by_example(model, x):
    """The gradient of each parameter from each example alone, in one batch of scaled examples."""
    size = torch.linspace(0.5, 2, len(x), dtype=x.dtype)
    found = []
    for i in range(len(x)):
        one = copy.deepcopy(model)
        ((one(x[i : i + 1] * size[i]).sin() * 0.3).flatten(1).square().sum() / 8).backward()
        found.append([p.grad for p in one.parameters()])
    return dict(
        zip(
            [name for name, _ in model.named_parameters()],
            map(torch.stack, zip(*found, strict=True)),
            strict=True,
        )
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("power", [1, 2])
def test_against_examples_one_by_one(name, power):
    model, optimizer, x = train(name)
    metric = optimizer if power == 1 else noise.weigh_update(optimizer)
    weights = {p: adam_weights(optimizer, p) ** power for p in model.parameters()}
    with Probe(model, metric=metric, estimators=CHOICES, rates=[0.5]) as probe:
        loss_of(model, x).backward()
        optimizer.step()  # which the metric must not see
        found = probe.read()
        pairs = {layer: one.metric for layer, one in found.items()}
        probe.step()
    assert len(found) == sum(p.ndim > 1 for p in model.parameters())
    named, rows = dict(model.named_parameters()), probe.rows()
    by_example = gradients_by_example(train(name)[0], x)
    for layer, of in rows.groupby("layer"):
        key = next(k for k in named if k.startswith(layer) and named[k].ndim > 1)
        W, g = weights[named[key]], by_example[key]
        S, C = len(x), (W * g.sum(0).square()).sum()
        expected = S / (S - 1) * ((W * g.square()).sum() - C / S)
        assert of["metric_minibatch"].tolist() == pytest.approx(
            [expected.item()] * len(of), rel=1e-6
        )
        plain = S / (S - 1) * (g.square().sum() - g.sum(0).square().sum() / S)
        assert of["minibatch_example"].iloc[0] == pytest.approx(plain.item(), rel=1e-6)
        for _, row in of.iterrows():
            assert row["metric_ratio"] == pytest.approx(row["metric_variance"] / expected.item())
            of_pair = in_metric(row["estimator"], pairs[layer], W.flatten(1).T)
            assert row["metric_variance"] == pytest.approx(of_pair, rel=1e-6)
            # must fail: the metric of the gradient, and P for P²
            for other in (torch.ones_like(W), adam_weights(optimizer, named[key]) ** (3 - power)):
                wrong = in_metric(row["estimator"], pairs[layer], other.flatten(1).T)
                assert row["metric_variance"] != pytest.approx(wrong, rel=1e-3)


def in_metric(name, layer, weights):
    """The variance on the pairs of the uses, of which each draws for itself."""
    total = 0.0
    for part in layer.parts or (layer.moments,):
        m = Moments.of(*part.pair, weights)
        total += build(name, 0.5, m.y_sq).variance(m).item()
    return total


WITHOUT_PAIRS = CHOICES[:-1]


def table(model, x, metric, chosen=WITHOUT_PAIRS, batches=1, **options):
    """The rows of one step."""
    with Probe(model, metric=metric, estimators=chosen, rates=[0.5], **options) as probe:
        for _ in range(batches):
            loss_of(model, x).backward()
        probe.step()
        return probe.rows().set_index(["layer", "estimator"]), probe.coverage()


@pytest.mark.parametrize("name", MODELS)
def test_pairs_are_not_needed(name):
    model, optimizer, x = train(name)
    kept, _ = table(model, x, optimizer, CHOICES)
    model, optimizer, x = train(name)
    lean, _ = table(model, x, optimizer)
    for column in METRIC:
        torch.testing.assert_close(
            *(torch.tensor(t.loc[lean.index, column].tolist()) for t in (lean, kept)),
            equal_nan=True,
        )


def test_other_numbers_do_not_change():
    model, optimizer, x = train("sequences")
    with_it, _ = table(model, x, optimizer)
    model, optimizer, x = train("sequences")
    without, _ = table(model, x, None)
    assert without[METRIC].isna().all(axis=None)
    numbers = ["variance", "minibatch_row", "minibatch_example", "ratio", "alpha", "grad_sq"]
    for column in [*numbers, "ratio_stderr"]:
        assert with_it[column].tolist() == pytest.approx(
            without[column].tolist(), rel=1e-6, nan_ok=True
        )


def test_accumulated_passes_are_of_one_gradient():
    """The same batch twice: each half of a gradient, whose rows are drawn for twice."""
    model, optimizer, x = train("sequences")
    once, _ = table(model, x, optimizer)
    model, optimizer, x = train("sequences")
    twice, _ = table(model, x, optimizer, batches=2)
    at = once.index.get_level_values("estimator") == "gaussian"
    ratio = (twice["metric_variance"] / once["metric_variance"])[at]
    assert ratio.tolist() == pytest.approx([2.0] * at.sum())


class Scaler:
    """Scales as a GradScaler does."""

    def scale(self, t):
        return t * 1024.0


def test_scaled_losses():
    model, optimizer, x = train("sequences")
    plain, _ = table(model, x, optimizer)
    model, optimizer, x = train("sequences")
    with Probe(
        model, metric=optimizer, estimators=WITHOUT_PAIRS, rates=[0.5], scaler=Scaler()
    ) as probe:
        (loss_of(model, x) * 1024).backward()
        probe.step()
    scaled = probe.rows().set_index(["layer", "estimator"])
    for column in METRIC[:3]:
        assert scaled[column].tolist() == pytest.approx(plain[column].tolist(), rel=1e-6)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizers(kind):
    """SGD moves by the gradient itself; the others' P is what they step by, per unit of lr."""
    model, optimizer, x = train("rows", kind)
    rows, coverage = table(model, x, optimizer)
    assert not coverage["note"].any()
    if kind == "SGD":
        assert rows["metric_ratio"].tolist() == pytest.approx(rows["ratio"].tolist(), rel=1e-6)
        return
    assert rows["metric_ratio"].tolist() != pytest.approx(rows["ratio"].tolist(), rel=1e-2)
    weight = next(model.parameters())
    steps = noise.steps_of(optimizer, [weight])
    P = noise.weigh_progress(optimizer)(weight).flatten()
    torch.testing.assert_close(P / P.sum(), steps.sizes / steps.sizes.sum())


def test_a_weight_that_never_had_a_gradient_has_no_metric():
    model, optimizer, _ = train("rows")
    weight = model[0].weight
    optimizer.state[weight]["exp_avg_sq"][2] = 0
    P = noise.weigh_progress(optimizer)(weight)
    assert (P[2] == 0).all() and (P[:2] > 0).all() and P.isfinite().all()


def test_without_a_state():
    """Before its first update an optimizer says nothing; the rest is measured, and the next step
    in full.
    """
    model, optimizer, x = train("rows", steps=0)
    with Probe(model, metric=optimizer, estimators=["gaussian"], rates=[0.5]) as probe:
        for _ in range(2):
            loss_of(model, x).backward()
            optimizer.step()
            optimizer.zero_grad()
            probe.step()
            if probe.number == 1:
                told = probe.coverage()
                notes = told.loc[told["parameter"].str.endswith("weight"), "note"]
    first, second = (of for _, of in probe.rows().groupby("step"))
    assert notes.str.contains("Adam has no state.* before its first update.*step after").all()
    assert first["metric_ratio"].isna().all() and (first["ratio"] > 0).all()
    assert (second["metric_ratio"] > 0).all() and not probe.coverage()["note"].any()


def test_by_row():
    model, optimizer, x = train("sequences")
    rows, _ = table(model, x, optimizer, by_example=False)
    assert (rows["metric_variance"] > 0).all() and rows["metric_ratio"].isna().all()


def test_bad_metrics():
    model, _, x = train("rows")
    with pytest.raises(TypeError, match=r"metric= is the optimizer, or a function .* got 'update'"):
        Probe(model, metric="update")
    with pytest.raises(TypeError, match=r"the steps of RMSprop are not known, only those of Adam"):
        Probe(model, metric=torch.optim.RMSprop(model.parameters()))
    for metric, note in (
        (torch.optim.Adam([torch.zeros(2, requires_grad=True)]), "Adam does not train it"),
        (lambda p: torch.ones(2), r"weights of shape \(2,\) for a parameter of shape \(5, 6\)"),
    ):
        rows, coverage = table(model, x, metric)
        assert rows["metric_ratio"].isna().all() and (rows["ratio"] > 0).all()
        assert coverage["note"].str.contains(note).any()


def test_a_pair_in_a_metric():
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6, 9, d, generator=g, dtype=torch.float64) for d in (4, 3))
    W = torch.rand(4, 3, generator=g, dtype=torch.float64)
    of_examples = torch.stack([(W * (a.T @ b).square()).sum() for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(example_sq(x, y, weights=W), of_examples)
    torch.testing.assert_close(example_sq(x, y, budget=1, weights=W), of_examples)
    rows = noise.compare([pair_layer(x, y, W)], ["gaussian", "dct"], [0.5])
    C = (W * (x.flatten(0, 1).T @ y.flatten(0, 1)).square()).sum()
    D_sq = 6 / 5 * (of_examples.sum() - C / 6)
    assert rows["metric_minibatch"].tolist() == pytest.approx([D_sq.item()] * 2)
    m = Moments.of(x.flatten(0, 1), y.flatten(0, 1), W)
    for name, ratio in zip(rows["estimator"], rows["metric_ratio"], strict=True):
        assert ratio == pytest.approx((build(name, 0.5).variance(m) / D_sq).item())
    one = noise.compare([pair_layer(x[:, 0], y[:, 0], W)], ["gaussian"], [0.5])
    each = (x[:, 0].square() @ W * y[:, 0].square()).sum()
    C = (W * (x[:, 0].T @ y[:, 0]).square()).sum()
    assert one["metric_minibatch"].item() == pytest.approx((6 / 5 * (each - C / 6)).item())


def test_over_batches():
    """Means over batches, a ratio of means, and its error from batch to batch."""
    model, optimizer, x = train("sequences")
    batches = [x, x.flip(1) * 2, x.roll(1, 2) + 0.1]
    chosen = choices(["gaussian", "countsketch"], [0.5])
    read = []
    for batch in batches:
        model.zero_grad()
        with Probe(model, metric=optimizer) as probe:
            loss_of(model, batch).backward()
        read.append(read_batch(list(probe.read().values()), chosen))
    rows = pd.DataFrame(tabulate(read, chosen), columns=COLUMNS[2:])
    single = [pd.DataFrame(tabulate([one], chosen), columns=COLUMNS[2:]) for one in read]
    V, D_sq = (torch.tensor([t[c].tolist() for t in single]) for c in METRIC[:2])
    torch.testing.assert_close(torch.tensor(rows[METRIC[2]].tolist()), V.mean(0) / D_sq.mean(0))
    others = (V.sum(0) - V) / (D_sq.sum(0) - D_sq)
    stderr = ((others - others.mean(0)).square().sum(0) * 2 / 3).sqrt()
    torch.testing.assert_close(torch.tensor(rows[METRIC[3]].tolist()), stderr)
    assert (rows["metric_ratio_stderr"] > 0).all()


def test_errors_of_one_batch():
    """Against the ratio without each example, by its own gradient, the rest scaled up to as many
    rows; NaN for forms that ask for Q or the pair.
    """
    model, optimizer, x = train("sequences")
    named = dict(model.named_parameters())
    weights = {f"{key}.weight": adam_weights(optimizer, named[f"{key}.weight"]) for key in "02"}
    with Probe(model, metric=optimizer, estimators=["uniform-rows", "gaussian"], rates=[0.5]) as p:
        loss_of(model, x).backward()
        rows_sq = {name: one.metric.moments.rows_sq for name, one in p.read().items()}
        p.step()
    by_example = gradients_by_example(train("sequences")[0], x)
    S, n = len(x), x.shape[0] * x.shape[1]
    for (layer, name), row in p.rows().set_index(["layer", "estimator"]).iterrows():
        if name == "gaussian":
            assert row["metric_ratio_stderr"] != row["metric_ratio_stderr"]
            continue
        key = f"{layer}.weight"
        e = (weights[key] * by_example[key].square()).flatten(1).sum(1)
        C = (weights[key] * by_example[key].sum(0).square()).sum()
        d = rows_sq[layer].view(S, -1).sum(1)
        found = []
        for s in range(S):
            up, rest = S / (S - 1), C - e[s]  # norms make do for inner products
            variance = n * up * (d.sum() - d[s]) - up**2 * rest
            minibatch = (e.sum() - e[s] - rest / (S - 1)) * S / (S - 2)
            found.append(variance / (n - 1) / minibatch)
        value = torch.stack(found)
        stderr = ((value - value.mean()).square().sum() * (S - 1) / S).sqrt()
        assert row["metric_ratio_stderr"] == pytest.approx(stderr.item(), rel=1e-6)
        assert row["metric_ratio_stderr"] != pytest.approx(1.05 * stderr.item(), rel=1e-3)


class Normed(nn.Sequential):
    """A BatchNorm ties the examples of the layer before it."""

    def __init__(self):
        super().__init__(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 2))


class Crossed(nn.Module):
    """Parts of in_proj_weight are layers of their own; a checkpoint runs forward again."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        x = checkpoint(self.linear, x, use_reentrant=False)
        return self.attention(x, x.flip(1), x.flip(2))[0]


EVERY = {
    **MODELS,
    "normed": (Normed, (8, 2, 6, 6)),
    "crossed": (Crossed, (8, 7, 6)),
}


@pytest.mark.parametrize("name", EVERY)
def test_equal_weights_are_the_euclidean_metric(name):
    torch.manual_seed(0)
    make, shape = EVERY[name]
    for dtype, rel in ((torch.float64, 1e-6), (torch.bfloat16, 2e-2)):
        model, x = make().to(dtype), torch.randn(shape).to(dtype)
        rows, _ = table(model, x, torch.ones_like)
        assert (rows["metric_ratio"] > 0).all()
        for plain, weighed in (
            ("variance", "metric_variance"),
            ("minibatch_example", "metric_minibatch"),
        ):
            assert rows[weighed].tolist() == pytest.approx(rows[plain].tolist(), rel=rel)
    model = make().double()
    rows, _ = table(model, torch.randn(shape).double(), lambda p: torch.full_like(p, 4.0))
    ratio = rows["metric_variance"] / rows["variance"]
    assert ratio.tolist() == pytest.approx([4.0] * len(rows), rel=1e-6)
