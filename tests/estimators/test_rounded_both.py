"""Both sides rounded: every outcome, with the bias and the variance apart."""

import pytest
import torch
from test_enumerate import agrees

from sketchvar.estimators import BothRounded, GridRounding, Moments, StochasticRounding, parse
from sketchvar.estimators.testing import mean_and_variance

COARSE = GridRounding("e2m1", scale="power")
TOKENS = GridRounding("e2m1", axis="tokens", rotate=4)
CASES = [
    BothRounded(COARSE, GridRounding("e2m1")),
    BothRounded(COARSE, StochasticRounding(1)),
    BothRounded(TOKENS, TOKENS),
    BothRounded(GridRounding("e2m1", nearest=True), GridRounding("e2m1")),
    BothRounded(GridRounding("e2m1", axis="tokens", rotate=4, nearest=True), TOKENS),
    BothRounded(COARSE, GridRounding("e2m1", nearest=True)),
]


@pytest.mark.parametrize("estimator", CASES, ids=str)
def test_enumeration(estimator):
    g = torch.Generator().manual_seed(0)
    n, p, q = (4, 1, 1) if estimator.of_x.rotate else (2, 2, 3)
    x, y = (torch.randn(n, d, generator=g, dtype=torch.float64) + 0.5 for d in (p, q))
    m = Moments.of(x, y)
    mean, mean_square = mean_and_variance(estimator, x, y)
    bias = (mean - m.G).square().sum()
    assert agrees(mean_square, estimator.variance(m), m)
    assert agrees(bias, estimator.bias_sq(m), m)
    assert estimator.traits.biased == (bias > 1e-20).item()
    # must fail: 5 % off, and the errors of one side alone
    assert not agrees(mean_square, estimator.variance(m) * 1.05, m)
    assert not agrees(mean_square, estimator.of_x.variance(m), m)


def test_the_published_recipe():
    recipe = parse("nvfp4-recipe")
    assert recipe.of_x.nearest and not recipe.of_y.nearest
    assert recipe.of_x.rotate == recipe.of_y.rotate == 16 and recipe.of_x.axis == "tokens"
    g = torch.Generator().manual_seed(0)
    m = Moments.of(torch.randn(64, 8, generator=g), torch.randn(64, 4, generator=g))
    assert 0 < recipe.bias_sq(m) < recipe.variance(m) < m.C


def test_tokens_are_mixed_alike():
    with pytest.raises(ValueError, match=r"mix tokens alike, got rotate=4 and None along tokens"):
        BothRounded(TOKENS, COARSE)
