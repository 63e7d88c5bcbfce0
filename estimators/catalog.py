"""CATALOG: name -> class. Tests, studies, figures and the command line loop over it."""

from collections.abc import Collection
from difflib import get_close_matches

from torch import Tensor

from estimators.countsketch import CountSketch
from estimators.dense import Gaussian, Rademacher
from estimators.estimator import Estimator
from estimators.exact import Exact
from estimators.orthogonal import SRHT
from estimators.sampling import NormRows, OptimalRows, UniformRows

CATALOG: dict[str, type[Estimator]] = {
    "exact": Exact,
    "gaussian": Gaussian,
    "rademacher": Rademacher,
    "countsketch": CountSketch,
    "srht": SRHT,
    "uniform-rows": UniformRows,
    "norm-rows": NormRows,
    "optimal-rows": OptimalRows,
}
WITHOUT_RATE = {"exact"}
ORACLES = {"optimal-rows"}  # know ‖yᵢ‖² in advance, so no layer can use them


def build(name: str, rate: float, y_sq: Tensor | None = None) -> Estimator:
    """The estimator called ``name`` at ``rate``; an oracle takes the squared row norms ``y_sq`` of Y.

    Raises ValueError for a name that is not in the catalog, a rate outside (0, 1], or an oracle without ``y_sq``.
    """
    check_name(name)
    if name in WITHOUT_RATE:
        return CATALOG[name]()
    if name in ORACLES:
        if y_sq is None:
            raise ValueError(f"{name} is an oracle: it needs y_sq, the squared row norms of Y, in advance")
        return CATALOG[name](rate, y_sq)  # type: ignore[call-arg]
    return CATALOG[name](rate)  # type: ignore[call-arg]


def check_name(name: str) -> None:
    """Raise ValueError, with the nearest name, unless ``name`` is in the catalog."""
    check_known("estimator", name, CATALOG)


def check_known(kind: str, name: str, known: Collection[str]) -> None:
    """Raise ValueError, with the nearest name, unless ``name`` is one of ``known``; ``kind`` says what it names."""
    if name not in known:
        near = get_close_matches(name.lower(), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {kind} {name!r}; {hint}known are {', '.join(known)}")
