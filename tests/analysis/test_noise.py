"""Minibatch variance: exact over every minibatch of a small population; rows and examples where
they coincide.
"""

from itertools import product

import pytest
import torch

from sketchvar.analysis import noise
from sketchvar.analysis.probe import Probe
from sketchvar.analysis.tasks import TASKS
from sketchvar.estimators import Moments, UniformRows


@pytest.fixture
def population():
    g = torch.Generator().manual_seed(3)
    return (torch.randn(4, 2, d, generator=g, dtype=torch.float64) for d in (3, 2))


def variances(population, size, estimate):
    """(average estimate, true variance of G, both over every minibatch of ``size`` drawn with
    replacement).
    """
    x, y = population
    g_s = torch.einsum("stp,stq->spq", x, y)
    batches = [list(b) for b in product(range(len(x)), repeat=size)]
    sums = torch.stack([g_s[b].sum(0) for b in batches])
    truth = (sums - sums.mean(0)).square().sum((1, 2)).mean()
    estimates = torch.stack([estimate(x[b], y[b]) for b in batches])
    return estimates.mean(), truth


def test_by_example_is_unbiased_over_all_minibatches(population):
    def estimate(x, y):
        C = torch.einsum("stp,stq->pq", x, y).square().sum()
        return noise.by_example(noise.example_sq(x, y), C)

    found, truth = variances(population, 3, estimate)
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=0)


def test_control_by_row_is_not_the_truth_for_dependent_rows(population):
    def estimate(x, y):
        return noise.by_row(Moments.of(x.flatten(0, 1), y.flatten(0, 1)))

    found, truth = variances(population, 3, estimate)
    assert abs(found / truth - 1) > 0.05


def test_by_row_is_by_example_where_a_row_is_an_example():
    task = TASKS["digits-mlp"]
    torch.manual_seed(0)
    model = task.model()
    with Probe(model) as probe:
        task.loss(model, task.batch(0, seed=0)).backward()
    for layer in probe.read().values():
        example = noise.by_example(layer.example_sq, layer.moments.C)
        torch.testing.assert_close(noise.by_row(layer.moments), example, rtol=1e-12, atol=0)


def test_uniform_rows_are_a_smaller_batch(population):
    x, y = (t.flatten(0, 1) for t in population)
    m = Moments.of(x, y)
    n, k = 8, 2
    torch.testing.assert_close(
        UniformRows(k / n).variance(m), (n - k) / k * noise.by_row(m), rtol=1e-12, atol=0
    )


def test_one_row_or_one_example_has_no_variance():
    x = torch.ones(1, 3)
    m = Moments.of(x, x)
    assert torch.isnan(noise.by_row(m))
    assert torch.isnan(noise.by_example(torch.ones(1), m.C))
