"""sketchvar: how much noise a random sketch of a layer's activations adds to its gradient, and what
that costs.

    from sketchvar import CountSketch, Probe, estimate, sketch_linears

Nothing heavy is imported before a name is used.
"""

from pathlib import Path

import lazy_loader

__version__ = "0.2.0"
if not (
    Path(__file__).parent / "estimators"
).is_dir():  # a copy without symbolic links: the folders lie beside
    __path__.append(str(Path(__file__).parents[1]))

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
