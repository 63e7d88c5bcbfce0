"""The inverse question: the least rate at which an estimator's noise is small enough."""

from collections.abc import Callable

from torch import Tensor

from sketchvar.estimators.estimator import Estimator
from sketchvar.estimators.moments import Moments


def rate_for(
    make: Callable[[float], Estimator],
    m: Moments,
    ratio: float = 0.1,
    minibatch: Tensor | float | None = None,
) -> float:
    """Find the least rate at which the variance of ``make(rate)`` is at most ``ratio`` times that
    of the ``minibatch``, on a pair with the moments ``m``: by row, (nD − C)/(n − 1), unless given.

    Exact, by the closed form; of rates k/n, or k/p where there are more features than rows. The
    variance is taken to fall with the rate. Raises ValueError where no rate is enough.

    >>> import torch
    >>> from sketchvar.estimators import UniformRows
    >>> rate_for(UniformRows, Moments.of(torch.randn(100, 3), torch.randn(100, 2)), ratio=1.0)
    0.5
    """
    if minibatch is None:
        minibatch = (m.n * m.D - m.C) / max(m.n - 1, 1)
    most = float(ratio * minibatch) * (1 + 1e-9)  # a variance that is just enough is enough
    steps = max(m.n, m.p, 1)
    low, high = 1, steps
    if float(make(1.0).variance(m)) > most:
        raise ValueError(
            f"no rate of {make(1.0)} brings its variance to {ratio:g} of the minibatch's; it is"
            f" {float(make(1.0).variance(m)):.3g} at rate 1, above {most:.3g}: try one that is"
            " exact at rate 1, as UniformRows"
        )
    while low < high:
        middle = (low + high) // 2
        if float(make(middle / steps).variance(m)) <= most:
            high = middle
        else:
            low = middle + 1
    return low / steps
