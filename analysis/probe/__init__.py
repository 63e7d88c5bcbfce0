"""Per-layer statistics of an unmodified model while it trains; start with probe.py."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
