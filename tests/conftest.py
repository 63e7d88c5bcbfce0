"""Shapes and dtypes in annotations are checked while the tests of estimators and layers run
(jaxtyping with beartype); the harness runs as users run it.
"""

import pytest
import torch
from jaxtyping import config, install_import_hook

CHECKED = ("estimators", "layers")  # folders

torch.set_num_threads(1)  # matrices are small here, and the tests run beside each other
if not config.jaxtyping_disable:  # JAXTYPING_DISABLE=1
    hook = install_import_hook("sketchvar.estimators", "beartype.beartype")
    hook.__enter__()  # stays for the whole session: test modules import estimators after this file


@pytest.fixture(scope="module", autouse=True)
def checks_where_they_matter(request):
    """Check shapes in the tests of estimators and layers alone: of small matrices the checks take
    most of the time.
    """
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", before or request.path.parent.name not in CHECKED)
    yield
    config.update("jaxtyping_disable", before)


@pytest.fixture
def unchecked():
    """Run as users do, without the checks: where their own errors would come first."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


@pytest.fixture(params=[False, True], ids=["gram", "fused"])
def both_ways(request, monkeypatch):
    """The two ways in which a probe has the norms of per-example gradients, whichever is the faster
    one.
    """
    monkeypatch.setattr("sketchvar.analysis.probe.observer.pays", lambda *sizes: request.param)
