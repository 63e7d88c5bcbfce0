"""Randomized estimators of G = XᵀY that do not keep X, each with its exact variance."""

from estimators.catalog import CATALOG, build
from estimators.certain import BernoulliRows, TopRows, WinnerTakeAllRows
from estimators.combine import Centered, Then
from estimators.convert import Conversion, sketch_linears, unsketch
from estimators.countsketch import CountSketch, SparseSign
from estimators.dense import Gaussian, Rademacher
from estimators.empirical import Empirical, Measured, empirical
from estimators.estimator import Compressed, Estimator, estimate
from estimators.exact import Exact
from estimators.feature import FeatureProjection
from estimators.linear import SketchedConv2d, SketchedLinear
from estimators.moments import Moments
from estimators.orthogonal import SRHT, Haar, SubsampledDCT
from estimators.predicted import counting
from estimators.quantize import StochasticRounding
from estimators.sampling import NormRows, OptimalRows, ScoredRows, UniformRows
from estimators.sketch import RowSketch
from estimators.spelling import parse, spell

__all__ = [
    "CATALOG",
    "SRHT",
    "BernoulliRows",
    "Centered",
    "Compressed",
    "Conversion",
    "CountSketch",
    "Empirical",
    "Estimator",
    "Exact",
    "FeatureProjection",
    "Gaussian",
    "Haar",
    "Measured",
    "Moments",
    "NormRows",
    "OptimalRows",
    "Rademacher",
    "RowSketch",
    "ScoredRows",
    "SketchedConv2d",
    "SketchedLinear",
    "SparseSign",
    "StochasticRounding",
    "SubsampledDCT",
    "Then",
    "TopRows",
    "UniformRows",
    "WinnerTakeAllRows",
    "build",
    "counting",
    "empirical",
    "estimate",
    "parse",
    "sketch_linears",
    "spell",
    "unsketch",
]
