"""Study: train a task, measure at chosen steps, set every estimator's variance beside the
minibatch's.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
