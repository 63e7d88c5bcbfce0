"""Layer: what a step told of one weight matrix, and a pair (X, Y) as such a layer."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis.noise.closed import RESOLUTION, example_sq
from sketchvar.estimators import Moments
from sketchvar.estimators.estimator import as_tensors, check_pair


@dataclass(frozen=True)
class Layer:
    """What one step told of one weight matrix: all its uses, in all backward passes that made its
    gradient.

    ``moments`` is of X (rows of inputs) and Y (rows of output gradients), padding included, as the
    layer saw them;
    ``rows`` is the number of rows that are data, as far as the probe's ``examples`` says which are
    padding.
    ``examples`` is the number of examples and ``example_sq`` holds ‖X_sᵀY_s‖² of each, None for a
    probe by row.
    All is in the scale of the gradient that autograd produced (under a GradScaler, unscaled);
    ``dtype`` is the product's. ``input_of`` is the first layer that read the same X, as the query
    is of its key and value, which a compressed copy would serve together; its own name where no
    other read it before. ``sketchable``: ``sketch_linears`` can convert it.
    ``uses`` is how often the weight was used, in all passes; ``parts`` are the moments of each use,
    where there are several and they are known. ``sums`` holds ‖X_s‖², ‖Y_s‖² and Σ ‖xᵢ‖²‖yᵢ‖² of
    each example, from which standard errors come, and ``inner`` ⟨g_s, G⟩ where that was asked for.
    ``weights`` w_s, of sum 1, are the examples' parts in a mean over tokens. ``metric`` is the same
    layer with its ``moments``, ``parts`` and ``example_sq`` in another metric.
    """

    name: str
    moments: Moments
    examples: int
    example_sq: Tensor | None
    rows: int
    dtype: torch.dtype
    input_of: str
    sketchable: bool = True
    uses: int = 1
    parts: tuple[Moments, ...] = ()
    sums: Float[Tensor, "3 S"] | None = None
    inner: Float[Tensor, " S"] | None = None
    weights: Float[Tensor, " S"] | None = None
    metric: "Layer | None" = None

    def __repr__(self) -> str:
        size = f"{self.rows} rows of {self.examples} examples"
        return f"Layer({self.name!r}: {size}, p={self.moments.p}, q={self.moments.q})"

    def measured_in(
        self,
        moments: Moments,
        example_sq: Tensor | None,
        rows: Float[Tensor, " S"] | None,
        parts: tuple[Moments, ...] = (),
        inner: Float[Tensor, " S"] | None = None,
    ) -> "Layer":
        """The same layer in another metric; of each example ``rows`` is Σ ‖xᵢyᵢᵀ‖², and ‖X_s‖²
        and ‖Y_s‖² are nothing that Q could be made of.
        """
        sums = None
        if example_sq is not None:
            none = torch.full_like(example_sq, torch.nan)
            sums = torch.stack([none, none, none if rows is None else rows])
        return replace(
            self, moments=moments, example_sq=example_sq, parts=parts, sums=sums, inner=inner
        )

    @property
    def resolution(self) -> float:
        """The part of S Σ‖g_s‖² below which a minibatch variance cannot be told from 0.

        Where G was formed in half precision ‖G‖² is known to 2ε/√(pq), the rounding of its entries.
        """
        m, narrow = self.moments, self.dtype.itemsize < 4
        rounding = 4 * torch.finfo(self.dtype).eps / max(m.p * m.q, 1) ** 0.5
        return RESOLUTION + rounding * narrow


def pair_layer(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Layer:
    """A pair as a layer: X (n × p) and Y (n × q) of n examples, or X (S × T × p) and Y (S × T × q)
    of S examples. With ``weights`` (p × q) it has numbers in their metric too.

    Raises ValueError for shapes that do not fit or fewer than two examples, which have no minibatch
    variance.
    """
    x, y = as_tensors(x, y)
    if x.ndim != y.ndim or x.shape[:-1] != y.shape[:-1] or x.ndim not in (2, 3):
        raise ValueError(
            "X and Y must be n × p and n × q, or S × T × p and S × T × q for S examples of T rows, "
            f"got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if len(x) < 2:
        raise ValueError(
            f"a minibatch variance needs at least 2 examples, got {len(x)}; give X and Y as rows, n"
            " × p and n × q"
        )
    rows = x.flatten(0, -2), y.flatten(0, -2)
    check_pair(*rows)
    m = Moments.of(*rows)
    squares = m.x_sq * m.y_sq if x.ndim == 2 else example_sq(x, y)
    numbers = torch.stack([m.x_sq, m.y_sq, m.x_sq * m.y_sq, inner_products(*m.pair, m.G)])
    each = numbers.view(4, len(x), -1).sum(2)
    layer = Layer("pair", m, len(x), squares, m.n, x.dtype, "pair", sums=each[:3], inner=each[3])
    if weights is None:
        return layer
    m = Moments.of(*rows, weights)
    squares = m.rows_sq if x.ndim == 2 else example_sq(x, y, weights=weights)
    return replace(layer, metric=layer.measured_in(m, squares, m.rows_sq.view(len(x), -1).sum(1)))


def inner_products(x: Tensor, y: Tensor, g: Tensor) -> Float[Tensor, " n"]:
    """⟨xᵢyᵢᵀ, G⟩ = ⟨xᵢG, yᵢ⟩ of each row, in float64."""
    if g.shape[0] < g.shape[1]:  # the smaller product is read again
        return torch.linalg.vecdot(y @ g.T, x).double()
    return torch.linalg.vecdot(x @ g, y).double()
