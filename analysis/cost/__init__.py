"""What noise costs: how much less a step, or a training, gains because of an estimator."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
