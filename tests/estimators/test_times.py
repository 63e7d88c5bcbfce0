"""Closed forms are cheap: all of the catalog that are not labelled slow, from one ``Moments``."""

import time

import pytest
import torch

from sketchvar.estimators import CATALOG, Moments, choices

MOST = 3  # products XᵀY


def seconds(run):
    """The least of three, of one thread's own."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.slow
def test_the_whole_catalog_takes_less_than_three_products():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x, y = torch.randn(4096, 512), torch.randn(4096, 2048)
        made = [c for c in choices(list(CATALOG), [0.1]) if not c.no_closed_form]

        def compute(chosen):
            m = Moments.of(x, y)
            for choice in chosen:
                choice.told(m.y_sq).variance(m)

        product = seconds(lambda: x.T @ y)
        fast = seconds(lambda: compute([c for c in made if not c.estimator.traits.slow_form]))
        slow = seconds(lambda: compute([c for c in made if c.estimator.traits.slow_form]))
        assert fast - product < MOST * product  # the Moments have one product of their own
        assert slow > MOST * product  # must fail: the label is needed
    finally:
        torch.set_num_threads(threads)
