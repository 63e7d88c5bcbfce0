"""What the numbers mean: the minibatch variance, its noise scale, and estimators beside it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
