"""The harness: measures the minibatch variance of real training and sets every estimator's variance
beside it.
"""

import lazy_loader

if __name__ == "analysis":
    raise ImportError(
        "`analysis` is `sketchvar.analysis` now: import that, and run `python -m sketchvar`"
    )

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
