"""compare(), variance() and frontier(): estimators on a pair X, Y that is there, as tables."""

from collections.abc import Sequence

import pandas as pd
import torch

from sketchvar.analysis.explore.result import Comparison, Frontier
from sketchvar.analysis.frontier import rows as frontiers
from sketchvar.analysis.noise.batch import Sums
from sketchvar.analysis.noise.errors import estimate
from sketchvar.analysis.noise.layer import pair_layer
from sketchvar.estimators import choices, empirical
from sketchvar.estimators import estimate as estimate_product
from sketchvar.estimators.choice import Estimators, Flags, Rates
from sketchvar.estimators.seeds import fold

DEFAULT = ["uniform-rows", "norm-rows", "gaussian", "countsketch", "centered(countsketch)"]
DEFAULT += ["uniform-rows+rounding:4", "rounding:2", "rounding:4", "optimal-rows"]
RATES = (0.5, 0.2, 0.1, 0.05)
COLUMNS = ["estimator", "rate", "share", "variance", "measured", "stderr", "draws", "z"]
COLUMNS += ["minibatch_example", "ratio", "ratio_stderr", *Flags._fields]
SAME = 1e-9  # of a variance: draws that differ by less differ by rounding
ERRORS = ["estimator", "rate", "draw", "error_sq", "variance", "grad_sq"]


def compare(
    x: torch.Tensor,
    y: torch.Tensor,
    estimators: Estimators = DEFAULT,
    rates: Rates = RATES,
    *,
    draws: int = 0,
    seed: int = 0,
) -> Comparison:
    """Compare estimators of XᵀY on one pair: a table with errors, and ``.plot()``.

    X is n × p and Y n × q, of n examples, or S × T × p and S × T × q, of S examples of T rows;
    tensors or NumPy arrays of one floating dtype. ``estimators`` and ``rates`` as ``choices`` takes
    them. ``variance`` is exact; with ``draws`` it is ``measured`` too, with ``stderr`` and ``z``,
    from ``seed``, and so is always what has no closed form (by 32, unless given). ``ratio`` is
    the variance over that of the minibatch, by example, and ``ratio_stderr`` has the error of both.

    >>> import torch
    >>> x = torch.eye(20)
    >>> compare(x, x, ["gaussian", "uniform-rows"], rates=0.1)
       estimator  rate  share  variance  ratio  ratio_stderr
        gaussian   0.1  0.105       210   10.5             0
    uniform-rows   0.1  0.105       180      9             0

    Raises ValueError for shapes that do not fit, fewer than two examples or one draw, and what
    ``choices`` raises; TypeError for tensors that are not of one floating dtype.
    """
    if draws == 1 or draws < 0:
        raise ValueError(f"draws= must be 0, or 2 or more for a standard error, got {draws}")
    layer = pair_layer(x, y)
    m, given = layer.moments, layer.moments.pair
    example, error = map(float, estimate(torch.clone, [Sums.of([layer]).example[0]]))
    lines = []
    for choice in choices(estimators, rates):
        estimator = choice.told(m.y_sq)
        closed = float("nan") if choice.no_closed_form else float(estimator.variance(m))
        seen, stderr, count, z = float("nan"), 0.0, draws, float("nan")
        if choice.no_closed_form or draws:
            count = draws or frontiers.DRAWS
            drawn = empirical(estimator, *given, count, fold(seed, "compare", choice.name)).variance
            seen, stderr = float(drawn.value), float(drawn.stderr)
            if stderr > SAME * seen:
                z = float(drawn.z(closed))
        share = estimator.kept_bytes(m.n, m.p, layer.dtype) / (m.n * m.p * layer.dtype.itemsize)
        value = seen if choice.no_closed_form else closed
        own = stderr if choice.no_closed_form else 0.0
        ratio = value / example
        spread = ((ratio * error) ** 2 + own**2) ** 0.5 / example
        numbers = (share, closed, seen, stderr if count else float("nan"), count, z)
        lines.append((choice.name, choice.rate, *numbers, example, ratio, spread, *choice.flags))
    return Comparison(pd.DataFrame(lines, columns=COLUMNS))


def variance(
    estimator: Estimators,
    x: torch.Tensor,
    y: torch.Tensor,
    rates: Rates = (),
    *,
    draws: int = 100,
    seed: int = 0,
) -> Comparison:
    """Tell the variance of one estimator, or of several, by its closed form and by ``draws`` from
    ``seed`` beside it: ``compare`` of X and Y with the estimator first, at ``rates`` where it
    brings none. Raises ValueError and TypeError as that does.

    >>> import torch
    >>> x = torch.eye(20)
    >>> found = variance("gaussian:0.1", x, x, draws=50).table.iloc[0]
    >>> print(found["variance"], abs(found["z"]) < 4)  # (400 + 20) / 2
    210.0 True
    """
    return compare(x, y, estimator, rates, draws=draws, seed=seed)


def frontier(
    x: torch.Tensor,
    y: torch.Tensor,
    estimators: Estimators = frontiers.ESTIMATORS,
    fractions: Sequence[float] = frontiers.FRACTIONS,
    *,
    draws: int = frontiers.DRAWS,
    seed: int = 0,
) -> Frontier:
    """Compare estimators at equal bytes on one pair, as ``sketchvar frontier --pair`` does: each at
    the largest rate that fits each of ``fractions`` of X's bytes.

    X and Y as for ``compare``. ``.best(budget)`` names the least ratios, ``.plot()`` draws a panel
    for each way to compress; ``draws`` from ``seed`` stand behind variances without a closed form,
    which ``draws=0`` leaves out.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.randn(64, 16), torch.randn(64, 8)
    >>> frontier(x, y, ["uniform-rows", "rounding:2"], [0.25]).best(0.25).round(2)
          estimator  fraction  ratio  ratio_stderr
    0    rounding:2      0.19   0.23          0.02
    1  uniform-rows      0.24   3.27          0.31

    Raises ValueError for shapes that do not fit, and what ``choices`` raises.
    """
    layer = pair_layer(x, y)
    return Frontier(frontiers.frontier(layer, layer.dtype, estimators, fractions, draws, seed))


def draw_errors(
    estimators: Estimators,
    x: torch.Tensor,
    y: torch.Tensor,
    rates: Rates = (),
    *,
    draws: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Draw each estimator many times, a row per draw: ``error_sq`` = ‖Ĝ − G‖², whose mean is the
    ``variance``, beside ``grad_sq`` = ‖G‖². For ``plot.error_distribution``.
    """
    m = pair_layer(x, y).moments
    lines = []
    for choice in choices(estimators, rates):
        estimator = choice.told(m.y_sq)
        closed = float("nan") if choice.no_closed_form else float(estimator.variance(m))
        for i in range(draws):
            g = estimate_product(estimator, *m.pair, fold(seed, "errors", choice.name, i))
            error = float((g.double() - m.G.double()).square().sum())
            lines.append((choice.name, choice.rate, i, error, closed, float(m.C)))
    return pd.DataFrame(lines, columns=ERRORS)
