"""Tasks: what a study trains; ``TASKS`` knows their names, and makes one when it is asked for."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
