"""Product: one use of a weight, its input and output gradient as X and Y, example by example."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis import noise
from sketchvar.analysis.probe.units import Unit
from sketchvar.estimators.layers.forms import Form


class Product(NamedTuple):
    """The input ``x`` and output gradient ``y`` of one use of a layer."""

    form: Form
    unit: Unit
    x: Tensor
    y: Tensor

    def of(self, examples: slice) -> tuple[Float[Tensor, "S T p"], Float[Tensor, "S T q"]]:
        """X and Y of some of the examples."""
        x, y = self.unit.part(self.x, examples), self.unit.part(self.y, examples)
        count = examples.stop - examples.start
        rows, gradients = self.form.rows(x), self.form.gradient_rows(y)
        return rows.reshape(count, -1, rows.shape[-1]), gradients.reshape(
            count, -1, gradients.shape[-1]
        )


def example_sq(products: Sequence[Product]) -> Float[Tensor, " S"]:
    """‖Σ X_sᵀY_s‖² for each example, the sum over products with the same examples: one X with all
    of their rows.

    Goes through the examples in chunks that take no more memory than the products' own tensors,
    whose rows may be patches or have to be gathered.
    """
    count = products[0].unit.count(products[0].x)
    held = sum(product.x.numel() + product.y.numel() for product in products)
    formed = sum(t.numel() for product in products for t in product.of(slice(0, min(1, count))))
    chunk = max(1, held // max(formed, 1))
    parts = [products[0].x.new_zeros(0, dtype=torch.float64)]
    for start in range(0, count, chunk):
        pairs = [product.of(slice(start, min(start + chunk, count))) for product in products]
        x, y = (
            torch.cat(side, 1) if len(side) > 1 else side[0] for side in zip(*pairs, strict=True)
        )
        parts.append(noise.example_sq(x, y))
    return torch.cat(parts)
