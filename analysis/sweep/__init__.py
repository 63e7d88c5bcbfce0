"""Sweep: train a task with every estimator, rate and seed, beside the baselines that a user has."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
