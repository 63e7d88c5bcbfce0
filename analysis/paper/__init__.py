"""The paper's items (Bershatsky et al. 2022, https://arxiv.org/abs/2201.13195) and its reviewers'
questions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
