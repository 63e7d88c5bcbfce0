"""Product: one use of a weight, its input and output gradient as X and Y, example by example."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sketchvar.analysis import noise
from sketchvar.analysis.noise.closed import total_sq
from sketchvar.analysis.probe.units import Unit
from sketchvar.estimators.layers.forms import Form
from sketchvar.estimators.norms import wide


class Product(NamedTuple):
    """The input ``x`` and output gradient ``y`` of one use of a layer."""

    form: Form
    unit: Unit
    x: Tensor
    y: Tensor

    def of(self, examples: slice) -> tuple[Float[Tensor, "S T p"], Float[Tensor, "S T q"]]:
        """X and Y of some of the examples."""
        return self.rows(self.x, examples), self.gradients(self.y, examples)

    def rows(self, x: Tensor, examples: slice) -> Float[Tensor, "S T p"]:
        """The rows that a layer reads, of some of the examples."""
        return by_example(self.form.rows(self.unit.part(x, examples)), examples)

    def gradients(self, y: Tensor, examples: slice) -> Float[Tensor, "S T q"]:
        """The rows that a layer gives, of some of the examples."""
        return by_example(self.form.gradient_rows(self.unit.part(y, examples)), examples)


def by_example(rows: Tensor, examples: slice) -> Tensor:
    count = examples.stop - examples.start
    return rows.reshape(count, rows.shape[:-1].numel() // max(count, 1), rows.shape[-1])


def chunks(count: int, size: int) -> Iterator[slice]:
    """Stretches of so many examples at a time."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def example_sq(
    products: Sequence[Product], weights: Float[Tensor, "p q"] | None = None
) -> Float[Tensor, " S"]:
    """‖Σ X_sᵀY_s‖² for each example s, in the metric of ``weights`` if there are any, the sum over
    products with the same examples: one X with all of their rows.

    Goes through the examples in chunks that take no more memory than the products' own tensors,
    whose rows may be patches or have to be gathered.
    """
    count = products[0].unit.count(products[0].x)
    held = sum(product.x.numel() + product.y.numel() for product in products)
    formed = sum(t.numel() for product in products for t in product.of(slice(0, min(1, count))))
    parts = [products[0].x.new_zeros(0, dtype=torch.float64)]
    for examples in chunks(count, max(1, held // max(formed, 1))):
        pairs = [product.of(examples) for product in products]
        x, y = (
            torch.cat(side, 1) if len(side) > 1 else side[0] for side in zip(*pairs, strict=True)
        )
        parts.append(noise.example_sq(x, y, weights=weights))
    return torch.cat(parts)


def normalized_example_sq(
    product: Product,
    output: Tensor,
    weight: Float[Tensor, "p q"],
    eps: float,
    root: Float[Tensor, "p q"] | None = None,
) -> Float[Tensor, " S"]:
    """‖g̃_s‖² for each example s of a layer whose ``output`` goes into a BatchNorm of this ``eps``.

    There G is a function of averages over the batch, the mean and the variance of the layer's
    outputs among them, and examples are not independent: Σ yᵢ = 0 in every channel. By the delta
    method, what an example does to these averages is put to its account: with x̄ the mean row and Σ
    the covariance of the rows, t_s the sum of the example's rows of Y, h_s = X_sᵀY_s − x̄ t_sᵀ, and
    w a column of the weight,

        g̃_s = h_s − Σw ⟨w, h_s⟩ / (wᵀΣw + ε)   in w's column,   Σ_s g̃_s = G.

    What the statistics do to the slope of the loss at the normalised outputs is left out. With the
    ``root`` √W of weights it is ‖√W ∘ g̃_s‖².
    """
    count = product.unit.count(product.x)
    each = weight.numel() + sum(t.numel() for t in product.of(slice(0, min(1, count))))
    steps = list(chunks(count, max(1, (product.x.numel() + product.y.numel()) // each)))
    spread = weight.new_zeros(weight.shape, dtype=wide(weight).dtype)
    mean, n, middle = spread[:, 0].clone(), 0, wide(product.form.gradient_rows(output)).mean(0)
    for examples in steps:
        x = wide(product.rows(product.x, examples).flatten(0, 1))
        spread += x.T @ (wide(product.gradients(output, examples).flatten(0, 1)) - middle)
        mean += x.sum(0)
        n += x.shape[0]
    spread, mean = spread / max(n, 1), mean / max(n, 1)
    variance = (weight * spread).sum(0) + eps
    parts = [mean.new_zeros(0, dtype=torch.float64)]
    for examples in steps:
        x, y = (wide(t) for t in product.of(examples))
        h = x.mT @ y - mean[:, None] * y.sum(1)[:, None]
        g = h - spread * ((weight * h).sum(1) / variance)[:, None]
        parts.append(total_sq(g if root is None else g * root))
    return torch.cat(parts)
