"""Closed forms are cheap: all of the catalog that are not labelled slow, from one ``Moments``."""

import time

import pytest
import torch

from sketchvar.estimators import CATALOG, Moments, choices

MOST = 3  # products XᵀY


def seconds(run, given):
    """The least of three, of one thread's own, each with something ``given`` anew."""
    taken = []
    for _ in range(3):
        what = given()
        start = time.process_time()
        run(what)
        taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.slow
def test_the_whole_catalog_takes_less_than_three_products(unchecked):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x, y = torch.randn(8192, 768), torch.randn(8192, 3072)
        made = [c for c in choices(list(CATALOG), [0.1]) if not c.no_closed_form]
        fast = [c for c in made if not c.estimator.traits.slow_form]
        (slow,) = (c for c in made if c.name == "sampled-entries")

        def moments():
            m = Moments.of(x, y)
            assert all(getattr(m, letter).isfinite().all() for letter in "GCQDL")
            return m

        def compute(chosen):
            return lambda m: [choice.told(m.y_sq).variance(m) for choice in chosen]

        product = seconds(lambda m: x.T @ y, moments)
        assert seconds(compute(fast), moments) < MOST * product
        assert slow.estimator.traits.slow_form  # must fail with it, as the label says
        assert seconds(compute([*fast, slow]), moments) > MOST * product
    finally:
        torch.set_num_threads(threads)
