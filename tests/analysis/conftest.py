"""The harness runs here as users run it, without the checks of shapes: for small matrices they take
most of the time, and tests/estimators and tests/layers have them.
"""

import pytest
from jaxtyping import config


@pytest.fixture(scope="module", autouse=True)
def without_checks():
    """Switch them off for a module of tests and its fixtures."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)
