from . import analysis, estimators, noise, plot
from .analysis.audit import audit
from .analysis.cost import cost, forks
from .analysis.explore import compare, frontier, variance
from .analysis.noise import noise_scale
from .analysis.plan import load_plan
from .analysis.probe import Probe, count_labels, not_padding
from .estimators.both import BothRounded
from .estimators.catalog import CATALOG, build
from .estimators.certain import BernoulliRows, TopRows, WinnerTakeAllRows
from .estimators.choice import Choice, choices
from .estimators.coarse import (
    Coarse,
    Generators,
    HotColumns,
    LargestEntries,
    LowRank,
    NearestRounding,
    SubtokenDirections,
)
from .estimators.columns import NormColumns
from .estimators.combine import Centered, Then
from .estimators.countsketch import CountSketch, SparseSign
from .estimators.dense import Gaussian, Rademacher
from .estimators.empirical import Empirical, Measured, empirical
from .estimators.entries import SampledEntries
from .estimators.estimator import Compressed, Estimator, estimate
from .estimators.exact import Exact
from .estimators.feature import FeatureProjection
from .estimators.floating import GridRounding
from .estimators.grouped import GroupedRows
from .estimators.layers.convert import Conversion, sketch_linears, unsketch
from .estimators.layers.linear import SketchedConv2d, SketchedLinear
from .estimators.layers.predicted import counting
from .estimators.layers.samples import tell_samples
from .estimators.metric import Kronecker
from .estimators.moments import Moments
from .estimators.orthogonal import SRHT, Haar, SubsampledDCT
from .estimators.principal import PrincipalFeatures
from .estimators.priority import PriorityRows
from .estimators.quantize import StochasticRounding
from .estimators.rates import rate_for
from .estimators.residual import Residual, Shrunk
from .estimators.row_bits import RowBits
from .estimators.sampling import NormRows, OptimalRows, ScoredRows, UniformRows
from .estimators.sketch import RowSketch
from .estimators.spelling import parse, spell

__version__: str
__all__ = [
    "CATALOG",
    "SRHT",
    "BernoulliRows",
    "BothRounded",
    "Centered",
    "Choice",
    "Coarse",
    "Compressed",
    "Conversion",
    "CountSketch",
    "Empirical",
    "Estimator",
    "Exact",
    "FeatureProjection",
    "Gaussian",
    "Generators",
    "GridRounding",
    "GroupedRows",
    "Haar",
    "HotColumns",
    "Kronecker",
    "LargestEntries",
    "LowRank",
    "Measured",
    "Moments",
    "NearestRounding",
    "NormColumns",
    "NormRows",
    "OptimalRows",
    "PrincipalFeatures",
    "PriorityRows",
    "Probe",
    "Rademacher",
    "Residual",
    "RowBits",
    "RowSketch",
    "SampledEntries",
    "ScoredRows",
    "Shrunk",
    "SketchedConv2d",
    "SketchedLinear",
    "SparseSign",
    "StochasticRounding",
    "SubsampledDCT",
    "SubtokenDirections",
    "Then",
    "TopRows",
    "UniformRows",
    "WinnerTakeAllRows",
    "analysis",
    "audit",
    "build",
    "choices",
    "compare",
    "cost",
    "count_labels",
    "counting",
    "empirical",
    "estimate",
    "estimators",
    "forks",
    "frontier",
    "load_plan",
    "noise",
    "noise_scale",
    "not_padding",
    "parse",
    "plot",
    "rate_for",
    "sketch_linears",
    "spell",
    "tell_samples",
    "unsketch",
    "variance",
]
