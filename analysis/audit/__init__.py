"""Audit: what is wrong, on average and from draw to draw, with a layer that stands in for
nn.Linear.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
