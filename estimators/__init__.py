"""Randomized estimators of G = XᵀY that do not keep X, each with its exact variance."""

from estimators.catalog import CATALOG, build
from estimators.convert import Conversion, sketch_linears, unsketch
from estimators.countsketch import CountSketch
from estimators.dense import Gaussian, Rademacher
from estimators.empirical import Empirical, Measured, empirical
from estimators.estimator import Compressed, Estimator, estimate
from estimators.exact import Exact
from estimators.linear import SketchedConv2d, SketchedLinear
from estimators.moments import Moments
from estimators.orthogonal import SRHT
from estimators.sampling import NormRows, OptimalRows, UniformRows
from estimators.sketch import RowSketch

__all__ = [
    "CATALOG",
    "SRHT",
    "Compressed",
    "Conversion",
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
    "SketchedConv2d",
    "SketchedLinear",
    "UniformRows",
    "build",
    "empirical",
    "estimate",
    "sketch_linears",
    "unsketch",
]
