"""Randomized estimators of G = XᵀY that do not keep X, each with its exact variance."""

from sketchvar.estimators.catalog import CATALOG, build
from sketchvar.estimators.certain import BernoulliRows, TopRows, WinnerTakeAllRows
from sketchvar.estimators.choice import Choice, choices
from sketchvar.estimators.combine import Centered, Then
from sketchvar.estimators.countsketch import CountSketch, SparseSign
from sketchvar.estimators.dense import Gaussian, Rademacher
from sketchvar.estimators.empirical import Empirical, Measured, empirical
from sketchvar.estimators.estimator import Compressed, Estimator, estimate
from sketchvar.estimators.exact import Exact
from sketchvar.estimators.feature import FeatureProjection
from sketchvar.estimators.floating import GridRounding
from sketchvar.estimators.grouped import GroupedRows
from sketchvar.estimators.layers.convert import Conversion, sketch_linears, unsketch
from sketchvar.estimators.layers.linear import SketchedConv2d, SketchedLinear
from sketchvar.estimators.layers.predicted import counting
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.orthogonal import SRHT, Haar, SubsampledDCT
from sketchvar.estimators.priority import PriorityRows
from sketchvar.estimators.quantize import StochasticRounding
from sketchvar.estimators.sampling import NormRows, OptimalRows, ScoredRows, UniformRows
from sketchvar.estimators.sketch import RowSketch
from sketchvar.estimators.spelling import parse, spell

__all__ = [
    "CATALOG",
    "SRHT",
    "BernoulliRows",
    "Centered",
    "Choice",
    "Compressed",
    "Conversion",
    "CountSketch",
    "Empirical",
    "Estimator",
    "Exact",
    "FeatureProjection",
    "Gaussian",
    "GridRounding",
    "GroupedRows",
    "Haar",
    "Measured",
    "Moments",
    "NormRows",
    "OptimalRows",
    "PriorityRows",
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
    "choices",
    "counting",
    "empirical",
    "estimate",
    "parse",
    "sketch_linears",
    "spell",
    "unsketch",
]

if __name__ == "estimators":
    raise ImportError("`estimators` is `sketchvar.estimators` now: import that")
