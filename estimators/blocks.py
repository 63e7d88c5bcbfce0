"""Products by blocks of rows, so that what they need is made where it is used and never whole."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from sketchvar.estimators.norms import center

# Rows at a time: 512 rows of a few hundred numbers stay in the cache, and their memory is used
# again, where a large matrix gets new pages from the system.
BLOCK = 512


def pays_in_blocks(y: Tensor) -> bool:
    """Whether summing over blocks is faster and as exact: on a CPU, and not in a dtype too narrow
    for partial sums.
    """
    return y.device.type == "cpu" and y.element_size() >= 4


def contract_rows(
    restore: Callable[[slice], list[Float[Tensor, "rows p"]]],
    p: int,
    y: Float[Tensor, "n q"],
    mean: Float[Tensor, " q"] | None = None,
) -> Float[Tensor, "p q"]:
    """X̂ᵀ(Y − 1 ``mean``) for the tensors that ``restore`` adds up to some rows of X̂.

    Its transpose is formed: the layout of a layer's weight, which autograd then takes without a
    copy.
    """
    n = y.shape[0]
    # blocks of one size, about BLOCK: a few rows that were left over would be a slow product
    size = -(-n // max(round(n / BLOCK), 1)) if pays_in_blocks(y) else n
    g = None  # the first product makes it: zeros would be a write and a read of a weight more
    for rows in (slice(start, start + size) for start in range(0, n, max(size, 1))):
        centred = y[rows] if mean is None else center(y[rows], mean)
        for part in restore(rows):
            g = centred.T @ part if g is None else g.addmm_(centred.T, part)
    return (y.new_zeros(y.shape[1], p) if g is None else g).T
