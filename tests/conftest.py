"""Shapes and dtypes in annotations are checked while the tests run (jaxtyping with beartype)."""

import pytest
import torch
from jaxtyping import config, install_import_hook

torch.set_num_threads(1)  # matrices are small here, and the tests run beside each other
if not config.jaxtyping_disable:  # JAXTYPING_DISABLE=1
    hook = install_import_hook("sketchvar.estimators", "beartype.beartype")
    hook.__enter__()  # stays for the whole session: test modules import estimators after this file


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
