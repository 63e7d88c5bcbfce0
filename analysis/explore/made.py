"""make_pair(): an X and a Y with the properties that decide which estimator is best."""

from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.seeds import fold, generator


def make_pair(
    n: int = 512,
    p: int = 32,
    q: int = 24,
    *,
    alpha: float = 0.0,
    tails: float = 0.0,
    mean: float = 0.0,
    seed: int = 0,
) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n q"]]:
    """Make X (n × p) and Y (n × q) in float32, of normal entries.

    ``alpha`` from 0 to 1 is ‖XᵀY‖² / (‖X‖²‖Y‖²) of rows that share a direction (1/n is added by
    chance); ``tails`` the standard deviation of the logarithm of rows' sizes, those of X and of Y
    apart; ``mean`` a number that all entries of X share.

    >>> x, y = make_pair(1000, 8, 6, alpha=0.25)
    >>> print(f"{(x.T @ y).square().sum() / x.square().sum() / y.square().sum():.1f}")
    0.3

    Raises ValueError for sizes below 2 rows or one feature, and an alpha outside of [0, 1].
    """
    if n < 2 or min(p, q) < 1:
        raise ValueError(f"a pair needs n >= 2 rows and p, q >= 1, got n={n}, p={p}, q={q}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is a part, 0 to 1, got alpha={alpha}; write 0.3 for 30 %")
    g = generator(fold(seed, "make_pair"))
    signs = g.normals(n, 1).sign()

    def draw(width: int) -> Tensor:
        shared = signs * g.normals(1, width).sign()
        rows = (1 - alpha**0.5) ** 0.5 * g.normals(n, width) + alpha**0.25 * shared
        return rows * (tails * g.normals(n, 1)).exp()

    return draw(p) + mean, draw(q)
