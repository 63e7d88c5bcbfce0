"""Layers that are told which samples they meet remember how large their gradients were."""

import pytest
import torch

from sketchvar.estimators import (
    Moments,
    NormRows,
    RowBits,
    ScoredRows,
    SketchedLinear,
    counting,
    estimate,
    tell_samples,
)
from sketchvar.estimators.layers.opaque import next_seed

B, T, P, Q, SAMPLES = 8, 4, 12, 6, 20
SIZES = 10.0 ** torch.linspace(-1, 1, SAMPLES)  # of the gradient of each sample


def batch(seed):
    g = torch.Generator().manual_seed(seed)
    index = torch.randperm(SAMPLES, generator=g)[:B]
    x, y = torch.randn(B, T, P, generator=g), torch.randn(B, T, Q, generator=g)
    return index, x, y * SIZES[index, None, None]


def trained(estimator, steps=30):
    torch.manual_seed(0)
    layer = SketchedLinear(P, Q, estimator)
    for seed in range(steps):
        index, x, y = batch(seed)
        with tell_samples(index, SAMPLES):
            layer(x).backward(y)
    layer.zero_grad()
    return layer


def scores_of(layer, index):
    by_sample = layer.sample_sq[index].sqrt().repeat_interleave(T)
    return layer.position_sq.sqrt().repeat(B) * by_sample


def test_sizes_of_samples_are_learned():
    layer = trained(ScoredRows(0.25))
    order = layer.sample_sq.argsort()
    assert (order - torch.arange(SAMPLES)).abs().max() <= 4
    index, x, y = batch(99)
    m = Moments.of(x.flatten(0, 1), y.flatten(0, 1))
    learned = ScoredRows(0.25, scores_of(layer, index)).variance(m)
    by_position = ScoredRows(0.25, layer.position_sq.sqrt().repeat(B)).variance(m)
    assert learned < 0.6 * min(by_position, NormRows(0.25).variance(m))


@pytest.mark.parametrize("make", [lambda s: ScoredRows(0.25, s), lambda s: RowBits(2, s)])
def test_the_gradient_is_the_estimate_with_these_scores(make):
    layer = trained(make(torch.ones(1)))
    index, x, y = batch(99)
    scores = scores_of(layer, index)
    torch.manual_seed(3)
    with tell_samples(index, SAMPLES):
        out = layer(x)
    out.backward(y)  # the samples are those of the forward pass
    torch.manual_seed(3)
    expected = estimate(make(scores), x.flatten(0, 1), y.flatten(0, 1), next_seed())
    assert torch.equal(layer.weight.grad.T, expected)


def test_what_is_learned_by_hand():
    layer = SketchedLinear(P, Q, ScoredRows(0.5))
    index, x, y = batch(0)
    mask = torch.ones(B, T)
    mask[0, 2:] = mask[1] = 0  # of sample 0 two rows count, of sample 1 none
    with tell_samples(index.tolist(), SAMPLES), counting(mask):
        layer(x).backward(y)
    sq = y.square().sum(-1)
    mean = (sq * mask).sum() / mask.sum()
    assert layer.sample_sq[index[0]] == pytest.approx((sq[0, :2].mean() / mean).item(), rel=1e-5)
    assert layer.sample_sq[index[2]] == pytest.approx((sq[2].mean() / mean).item(), rel=1e-5)
    assert layer.sample_sq[index[1]] == 1  # and those that were not met
    met = torch.zeros(SAMPLES, dtype=torch.bool).index_fill_(0, index, True)
    assert (layer.sample_sq[~met] == 1).all()
    before = layer.sample_sq.clone()
    with tell_samples(index, SAMPLES):
        layer(x).backward(torch.full((B, T, Q), torch.inf))
    assert torch.equal(layer.sample_sq, before)


def test_other_inputs_go_by_position():
    layer = SketchedLinear(P, Q, ScoredRows(0.5))
    with tell_samples(torch.arange(3), SAMPLES):
        layer(torch.randn(B, T, P)).sum().backward()
    assert "sample_sq" not in dict(layer.named_buffers())
    layer = trained(ScoredRows(0.5))
    assert layer.state_dict().keys() == {"weight", "bias"}
    layer.sketch(layer.estimator)
    assert "sample_sq" not in dict(layer.named_buffers())


def test_an_index_that_is_not_of_the_dataset():
    wrong = "not of the dataset: a dataset of 20 has samples 0 to 19"
    for index in ([0, 20], [-1, 3], [25]):
        with pytest.raises(ValueError, match=wrong), tell_samples(torch.tensor(index), 20):
            pass
    for index in (torch.ones(3), torch.ones(2, 2, dtype=torch.int64), torch.tensor([True])):
        with pytest.raises(ValueError, match="one whole number for each"), tell_samples(index, 20):
            pass
    layer = trained(ScoredRows(0.5), steps=1)
    with (
        tell_samples(torch.arange(B), 21),
        pytest.raises(ValueError, match="knows a dataset of 20"),
    ):
        layer(torch.randn(B, T, P))
