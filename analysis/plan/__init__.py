"""Plan: which estimator at which rate for which layer, for a memory budget or a noise budget."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
