"""The harness: measures the minibatch variance of real training and sets every estimator's variance beside it."""

from analysis.probe import Layer, Probe
from analysis.study import Study, run

__all__ = ["Layer", "Probe", "Study", "run"]
