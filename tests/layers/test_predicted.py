"""Layers that run ScoredRows learn where the gradient sits, drop padding, and stay unbiased."""

import copy

import pytest
import torch
from torch import nn

from sketchvar.estimators import (
    CountSketch,
    Moments,
    NormRows,
    OptimalRows,
    ScoredRows,
    SketchedConv2d,
    SketchedLinear,
    StochasticRounding,
    Then,
    UniformRows,
    counting,
    estimate,
    sketch_linears,
    unsketch,
)
from sketchvar.estimators.layers.opaque import next_seed
from sketchvar.estimators.layers.predicted import row_scores, with_scores

B, T, P, Q = 8, 16, 12, 6
SIZES = torch.cat([torch.tensor([10.0]), torch.full((T - 1,), 0.1)])[
    :, None
]  # the gradient sits on the first position


def scored(rate=0.1):
    return ScoredRows(rate, torch.ones(1), floor=0.1)


def trained(estimator, steps=5):
    torch.manual_seed(0)
    layer = SketchedLinear(P, Q, estimator)
    for _ in range(steps):
        layer(torch.randn(B, T, P)).backward(torch.randn(B, T, Q) * SIZES)
        layer.zero_grad()
    return layer


def test_a_layer_learns_its_scores_from_none():
    layer, other = trained(ScoredRows(0.1, floor=0.1)), trained(scored())
    assert torch.equal(layer.position_sq, other.position_sq) and layer.position_sq[0] > 1
    assert torch.equal(layer.weight, other.weight)


def test_running_scores_come_close_to_the_oracle():
    layer = trained(scored())
    x, y = torch.randn(B, T, P).flatten(0, 1), (torch.randn(B, T, Q) * SIZES).flatten(0, 1)
    m = Moments.of(x, y)
    scores = row_scores(layer.position_sq, B * T, T)
    learned = with_scores(layer.estimator, scores).variance(m)
    oracle = OptimalRows(0.1, m.y_sq).variance(m)
    assert learned < 2.5 * oracle
    assert learned < 0.2 * min(NormRows(0.1).variance(m), UniformRows(0.1).variance(m))


@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: Then(e, StochasticRounding(8))])
def test_the_gradient_is_the_estimate_with_the_scores_of_before(wrap):
    layer = trained(wrap(scored(0.25)))
    x, y = torch.randn(B, T, P), torch.randn(B, T, Q) * SIZES
    before = layer.position_sq.clone()
    torch.manual_seed(3)
    layer(x).backward(y)
    torch.manual_seed(3)
    seed = next_seed()
    estimator = with_scores(layer.estimator, row_scores(before, B * T, T))
    assert torch.equal(
        layer.weight.grad.T, estimate(estimator, x.flatten(0, 1), y.flatten(0, 1), seed)
    )
    expected = 0.9 * before + 0.1 * y.square().sum(-1).mean(0)
    assert torch.allclose(layer.position_sq, expected, rtol=1e-4)


def test_a_mask_drops_rows_and_does_not_count_them():
    layer = trained(scored(0.25))
    mask = torch.ones(B, T)
    mask[:, T // 2 :] = 0
    x, y = torch.randn(B, T, P), torch.randn(B, T, Q) * mask[..., None]
    with counting(mask):
        scores = row_scores(layer.position_sq, B * T, T)
        assert torch.equal(scores.reshape(B, T) == 0, mask == 0)
        layer(x).backward(y)
    assert not (row_scores(layer.position_sq, B * T, T) == 0).any()  # outside, all rows count again
    with pytest.raises(ValueError, match="mask of batch × length"), counting(torch.ones(3)):
        pass


def test_lengths_that_vary_and_inputs_without_positions():
    layer = trained(scored())
    for shape in ((2, 5, P), (2, 30, P), (40, P), (2, 3, 7, P)):
        layer(torch.randn(shape)).sum().backward()
        assert torch.isfinite(layer.weight.grad).all()
    assert layer.position_sq.shape == (30,)


def test_overflow_does_not_reach_the_scores():
    layer = trained(scored())
    before = layer.position_sq.clone()
    layer(torch.randn(B, T, P)).backward(torch.full((B, T, Q), torch.inf))
    assert torch.equal(layer.position_sq, before)


def test_state_dict_is_the_plain_one_and_copies_go_on():
    layer = trained(scored())
    assert layer.state_dict().keys() == nn.Linear(P, Q).state_dict().keys()
    twin = copy.deepcopy(layer)
    assert (
        torch.equal(twin.position_sq, layer.position_sq)
        and twin.position_sq is not layer.position_sq
    )
    layer.sketch(CountSketch(0.1))
    assert not list(layer.buffers())
    unsketch(twin)
    assert not list(twin.buffers()) and twin.__dict__.keys() == nn.Linear(P, Q).__dict__.keys()


def test_convolutions_have_pixels_for_positions():
    layer = SketchedConv2d(3, 4, 4, stride=4, estimator=scored(0.25))
    layer(torch.randn(2, 3, 16, 16)).sum().backward()
    assert layer.position_sq.shape == (16,)


def test_oracles_are_refused():
    with pytest.raises(ValueError, match="OptimalRows was told about the rows of Y in advance"):
        sketch_linears(nn.Linear(3, 3), OptimalRows(0.5, torch.ones(4)))
