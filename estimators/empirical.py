"""What an estimator does, by repeated draws: its mean and its variance, each with a standard
error.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sketchvar.estimators.estimator import Estimator, as_tensors, check_pair
from sketchvar.estimators.metric import Metric, as_metric
from sketchvar.estimators.norms import wide
from sketchvar.estimators.seeds import fold


@dataclass(frozen=True)
class Measured:
    """A Monte Carlo number: ``value`` is the average of ``count`` independent draws, ``stderr`` the
    standard error of that average.
    """

    value: Tensor
    stderr: Tensor
    count: int

    def __repr__(self) -> str:
        if self.value.numel() != 1:
            return f"Measured({tuple(self.value.shape)}, {self.count} draws)"
        return f"{self.value.item():.4g} ± {self.stderr.item():.2g} ({self.count} draws)"

    def z(self, expected: Tensor | float) -> Tensor:
        """(value − expected) / stderr; 0 where both differences vanish."""
        difference = self.value - expected
        return torch.where(difference == 0, 0.0, difference / self.stderr)


class Empirical(NamedTuple):
    """``mean`` is that of Ĝ, entry by entry (p × q); ``variance`` that of ‖Ĝ − G‖²_F (biased: the
    mean square).
    """

    mean: Measured
    variance: Measured


def empirical(
    estimator: Estimator,
    x: Tensor,
    y: Tensor,
    draws: int,
    seed: int,
    weights: Tensor | Metric | None = None,
) -> Empirical:
    """Measure mean and variance of ``estimator`` on X (n × p), Y (n × q) over a fixed number of
    draws, the variance in the metric of ``weights`` as ``Moments.of`` takes them; sums in float64.

    >>> from sketchvar.estimators import UniformRows
    >>> seen = empirical(UniformRows(0.5), torch.eye(8), torch.eye(8), draws=100, seed=0).variance
    >>> f"{seen.value:.3f} ± {seen.stderr:.3f}"  # every half of the rows errs alike here
    '8.000 ± 0.000'

    Draw i uses the seed ``fold(seed, i)``. Raises ValueError for fewer than two draws, which have
    no standard error. NumPy arrays and integers are taken too.
    """
    x, y = as_tensors(x, y)
    check_pair(x, y)
    if draws < 2:
        raise ValueError(
            f"empirical needs at least 2 draws for a standard error, got draws={draws}"
        )
    exact = (wide(x).T @ wide(y)).double()
    total, squares = torch.zeros_like(exact), torch.zeros_like(exact)
    errors, metric = [], as_metric(weights, *exact.shape)
    for i in range(draws):
        error = estimator.contract(estimator.compress(x, fold(seed, i)), y).double() - exact
        total += error
        squares += error.square()
        errors.append(metric.norm_sq(error))
    mean = total / draws
    spread = ((squares - draws * mean.square()).clamp(min=0) / (draws - 1) / draws).sqrt()
    each = torch.stack(errors)
    return Empirical(
        mean=Measured(exact + mean, spread, draws),
        variance=Measured(each.mean(), each.std() / draws**0.5, draws),
    )
