"""Randomized estimators of G = XᵀY that do not keep X, each with its exact variance.

Every class of the catalog is public here.
"""

from sketchvar.estimators import catalog
from sketchvar.estimators.catalog import *  # noqa: F403
from sketchvar.estimators.catalog import CATALOG, build
from sketchvar.estimators.choice import Choice, choices
from sketchvar.estimators.coarse import (
    Coarse,
    Generators,
    HotColumns,
    LargestEntries,
    LowRank,
    NearestRounding,
    SubtokenDirections,
)
from sketchvar.estimators.empirical import Empirical, Measured, empirical
from sketchvar.estimators.estimator import Compressed, Estimator, estimate
from sketchvar.estimators.grouped import GroupedRows
from sketchvar.estimators.layers.convert import Conversion, sketch_linears, unsketch
from sketchvar.estimators.layers.linear import SketchedConv2d, SketchedLinear
from sketchvar.estimators.layers.predicted import counting
from sketchvar.estimators.layers.samples import tell_samples
from sketchvar.estimators.metric import Kronecker
from sketchvar.estimators.moments import Moments
from sketchvar.estimators.rates import rate_for
from sketchvar.estimators.residual import Shrunk
from sketchvar.estimators.sketch import RowSketch
from sketchvar.estimators.spelling import parse, spell

__all__ = [
    "CATALOG",
    "Choice",
    "Coarse",
    "Compressed",
    "Conversion",
    "Empirical",
    "Estimator",
    "Generators",
    "GroupedRows",
    "HotColumns",
    "Kronecker",
    "LargestEntries",
    "LowRank",
    "Measured",
    "Moments",
    "NearestRounding",
    "RowSketch",
    "Shrunk",
    "SketchedConv2d",
    "SketchedLinear",
    "SubtokenDirections",
    "build",
    "choices",
    "counting",
    "empirical",
    "estimate",
    "parse",
    "rate_for",
    "sketch_linears",
    "spell",
    "tell_samples",
    "unsketch",
]
__all__ += [
    name
    for name, found in vars(catalog).items()
    if isinstance(found, type) and issubclass(found, Estimator) and name not in __all__
]


def __dir__() -> list[str]:
    return sorted(__all__)


if __name__ == "estimators":
    raise ImportError("`estimators` is `sketchvar.estimators` now: import that")
