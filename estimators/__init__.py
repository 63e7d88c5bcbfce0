"""Randomized estimators of G = XᵀY that do not keep X, each with its exact variance."""

from estimators.catalog import CATALOG, build
from estimators.countsketch import CountSketch
from estimators.dense import Gaussian, Rademacher
from estimators.empirical import Empirical, Measured, empirical
from estimators.estimator import Compressed, Estimator, estimate
from estimators.exact import Exact
from estimators.moments import Moments
from estimators.orthogonal import SRHT
from estimators.sampling import NormRows, OptimalRows, UniformRows
from estimators.sketch import RowSketch

__all__ = [
    "CATALOG",
    "SRHT",
    "Compressed",
    "CountSketch",
    "Empirical",
    "Estimator",
    "Exact",
    "Gaussian",
    "Measured",
    "Moments",
    "NormRows",
    "OptimalRows",
    "Rademacher",
    "RowSketch",
    "UniformRows",
    "build",
    "empirical",
    "estimate",
]
