"""CATALOG: name -> what makes the estimator. Tests, studies, figures and the command line loop over
it.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from inspect import signature
from typing import Any

from torch import Tensor

from sketchvar.estimators.both import BothRounded
from sketchvar.estimators.certain import BernoulliRows, TopRows, WinnerTakeAllRows
from sketchvar.estimators.coarse import (
    Generators,
    HotColumns,
    LargestEntries,
    LowRank,
    NearestRounding,
    SubtokenDirections,
)
from sketchvar.estimators.columns import NormColumns
from sketchvar.estimators.combine import Centered, Then, change_innermost, innermost
from sketchvar.estimators.countsketch import CountSketch, SparseSign
from sketchvar.estimators.dense import Gaussian, Rademacher
from sketchvar.estimators.entries import SampledEntries
from sketchvar.estimators.estimator import Estimator
from sketchvar.estimators.exact import Exact
from sketchvar.estimators.feature import FeatureProjection
from sketchvar.estimators.floating import GridRounding
from sketchvar.estimators.orthogonal import SRHT, Haar, SubsampledDCT
from sketchvar.estimators.principal import PrincipalFeatures
from sketchvar.estimators.priority import PriorityRows
from sketchvar.estimators.quantize import StochasticRounding
from sketchvar.estimators.residual import Residual
from sketchvar.estimators.row_bits import RowBits
from sketchvar.estimators.sampling import NormRows, OptimalRows, ScoredRows, UniformRows

# Names are spellings (see spelling.py) with no rate: "gaussian" stands for gaussian:0.1,
# gaussian:0.2, ...
CATALOG: dict[str, Callable[..., Estimator]] = {
    "exact": Exact,
    "gaussian": Gaussian,
    "rademacher": Rademacher,
    "sparse-sign": SparseSign,
    "countsketch": CountSketch,
    "countsketch-iid": partial(CountSketch, balanced=False),
    "srht": SRHT,
    "srht-iid": partial(SRHT, replacement=True),
    "dct": SubsampledDCT,
    "dct-iid": partial(SubsampledDCT, replacement=True),
    "haar": Haar,
    "uniform-rows": UniformRows,
    "uniform-rows-iid": partial(UniformRows, replacement=True),
    "norm-rows": NormRows,
    "norm-rows-iid": partial(NormRows, replacement=True),
    "bernoulli-rows": BernoulliRows,
    "priority-rows": PriorityRows,
    "winner-take-all-rows": WinnerTakeAllRows,
    "winner-take-all-rows-iid": partial(WinnerTakeAllRows, replacement=True),
    "scored-rows": ScoredRows,
    "scored-rows-iid": partial(ScoredRows, replacement=True),
    "optimal-rows": OptimalRows,
    "optimal-rows-iid": partial(OptimalRows, replacement=True),
    "top-rows": TopRows,
    "feature-gaussian": partial(FeatureProjection, distribution=Gaussian),
    "feature-rademacher": partial(FeatureProjection, distribution=Rademacher),
    "feature-columns": partial(FeatureProjection, distribution=UniformRows),
    "feature-haar": partial(FeatureProjection, distribution=Haar),
    "norm-columns": NormColumns,
    "principal-features": PrincipalFeatures,
    "sampled-entries": SampledEntries,
    "largest-entries": partial(Residual, coarse=LargestEntries),
    "hot-columns": partial(Residual, coarse=HotColumns),
    "low-rank": partial(Residual, coarse=LowRank),
    "generators": partial(Residual, coarse=Generators),
    "subtoken-directions": partial(Residual, coarse=SubtokenDirections),
    "nearest-rounding": partial(Residual, coarse=NearestRounding),
    "rounding:1": partial(StochasticRounding, 1),
    "rounding:2": partial(StochasticRounding, 2),
    "rounding:4": partial(StochasticRounding, 4),
    "rounding:8": partial(StochasticRounding, 8),
    "row-bits:2": partial(RowBits, 2),
    "rounding-rotated:2": partial(StochasticRounding, 2, rotate=True),
    "nvfp4": partial(GridRounding, grid="e2m1", block=16, scale="e4m3"),
    "nvfp4-nearest": partial(GridRounding, grid="e2m1", block=16, scale="e4m3", nearest=True),
    "mxfp4": partial(GridRounding, grid="e2m1", block=32, scale="power"),
    "nvfp4-both": partial(
        BothRounded,
        of_x=GridRounding("e2m1", 16, "e4m3", axis="tokens"),
        of_y=GridRounding("e2m1", 16, "e4m3", axis="tokens"),
    ),
    "fp8": partial(GridRounding, grid="e4m3"),
    "centered(countsketch)": lambda rate: Centered(CountSketch(rate)),
    "uniform-rows+rounding:4": lambda rate: Then(UniformRows(rate), StochasticRounding(4)),
    "countsketch+rounding:4": lambda rate: Then(CountSketch(rate), StochasticRounding(4)),
    "feature-gaussian+rounding:2": lambda rate: Then(
        FeatureProjection(rate), StochasticRounding(2)
    ),
}
WITHOUT_RATE = {name for name in CATALOG if "rate" not in signature(CATALOG[name]).parameters}
# are told about the rows of Y in advance, so no layer can take them by name
ORACLES = {
    name for name in CATALOG if name not in WITHOUT_RATE and CATALOG[name](1.0).traits.oracle
}


def build(name: str, rate: float, y_sq: Tensor | None = None) -> Estimator:
    """Build the estimator called ``name`` at ``rate``; an oracle takes the squared row norms
    ``y_sq`` of Y.

    Raises ValueError for a name that is not in the catalog, a rate outside (0, 1], or an oracle
    without ``y_sq``.
    ``parse`` of ``estimators.spelling`` takes any spelling, with its own rate or bits.
    """
    check_name(name)
    return tell(CATALOG[name]() if name in WITHOUT_RATE else CATALOG[name](rate), y_sq)


def tell(estimator: Estimator, y_sq: Tensor | None) -> Estimator:
    """Tell an oracle, also one inside ``Centered`` or ``Then``, the squared row norms ``y_sq`` (n)
    of Y; any other estimator comes back as it is.

    Raises ValueError where an oracle is told nothing.
    """
    if not estimator.traits.oracle:
        return estimator
    if y_sq is None:
        name = find_name(innermost(estimator))
        raise ValueError(
            f"{name} is an oracle: it needs y_sq, the squared row norms of Y, in advance"
        )

    def tell_it(oracle: Any) -> Estimator:
        if isinstance(oracle, ScoredRows):
            return replace(oracle, scores=y_sq.sqrt())
        return replace(oracle, y_sq=y_sq)

    return change_innermost(estimator, tell_it)


def find_name(oracle: Any) -> str:
    """Find the name in the catalog of an oracle that has been told nothing; else that of its
    class.
    """
    made = {name: CATALOG[name](oracle.rate) for name in ORACLES}
    kind = type(oracle)
    same = (n for n, e in made.items() if type(e) is kind and vars(e) == vars(oracle))
    return next(same, kind.__name__)


def check_name(name: str) -> None:
    """Raise ValueError, with the nearest name, unless ``name`` is in the catalog."""
    check_known("estimator", name, CATALOG)


def check_known(kind: str, name: str, known: Collection[str]) -> None:
    """Raise ValueError, with the nearest name, unless ``name`` is one of ``known``; ``kind`` says
    what it names.
    """
    if name not in known:
        raise ValueError(
            f"unknown {kind} {name!r}; {suggest(name, known)}known are {', '.join(known)}"
        )


def suggest(name: str, known: Collection[str]) -> str:
    """Ask whether the nearest known name was meant, or say nothing where none is near."""
    near = get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}? " if near else ""
