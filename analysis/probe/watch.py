"""Watch: a weight matrix under observation. Use: one product with it, forward and backward."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sketchvar.analysis.probe.product import Product, normalized_example_sq
from sketchvar.analysis.probe.product import example_sq as squares
from sketchvar.analysis.probe.units import Dimension, Unit
from sketchvar.analysis.probe.weighing import Weighed
from sketchvar.estimators.layers.forms import Conv2dForm, Form


@dataclass(frozen=True, eq=False)
class Watch:
    """The matrix ``parameter`` of ``module``, or the rows ``part`` of it.

    ``tied``: other modules have the same parameter. ``sketchable``: ``sketch_linears`` can convert
    the module.
    """

    name: str
    module: nn.Module
    parameter: str
    tied: bool = False
    sketchable: bool = True
    part: slice | None = None

    @property
    def weight(self) -> Any:
        """The parameter that the module has now; None where it has none."""
        return self.module._parameters.get(self.parameter)

    @property
    def place(self) -> tuple[nn.Module, str, int | None]:
        """What tells it from other watches."""
        return self.module, self.parameter, None if self.part is None else self.part.start


@dataclass(eq=False)
class Use:
    """One product with a watched weight. ``task`` is autograd's number of the backward pass that it
    belongs to, -1 until that is known.
    """

    watch: Watch
    form: Form
    unit: Unit
    task: int
    examples: int
    size: tuple[int, int]  # p and q
    leading: torch.Size  # dimensions of X that its rows stand in, as ``unit`` reads them
    weight: Tensor
    x_norm: Tensor
    first: str  # who read this X first
    dtype: torch.dtype = torch.float32
    y_norm: Tensor | None = None
    data: Tensor | None = None  # which rows are not padding, where that is known
    example_sq: Tensor | None = None
    grad_sq: Tensor | None = None  # of its own part of the weight's gradient
    product: Product | None = None  # X and Y themselves, where other uses may share the examples
    pair: tuple[Tensor, Tensor] | None = None
    weights: Tensor | None = None  # of its examples
    inner: Tensor | None = None  # ⟨g_s, G⟩ of each, where this use makes all of G
    normalized: tuple[Any, float] | None = None  # the node of the output and ε, before a BatchNorm
    weighed: Weighed | None = None  # in another metric
    coupled: bool = False  # its ``example_sq`` are of examples that a BatchNorm ties
    differentiated: bool = False  # its gradient is in a graph, of which another may be taken

    def in_sequence(self, x: Tensor) -> bool:
        """Whether its examples are stretches of rows, one after another."""
        return (
            x.ndim > 2
            and isinstance(self.unit, Dimension)
            and self.unit.number == 0
            and not isinstance(self.form, Conv2dForm)
        )

    def sum_by_example(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "d S"]:
        """Numbers of rows, summed over those of each example."""
        n, d = rows.shape
        within = () if self.leading.numel() == n else (-1,)  # of an image, its patches
        each = self.unit.part(rows.reshape(*self.leading, *within, d), slice(0, self.examples))
        return each.reshape(self.examples, -1, d).sum(1).T if self.examples else rows[:0].T

    def arrive(
        self,
        x: Tensor | None,
        y: Tensor,
        example_sq: Tensor | None,
        by_example: bool,
        paired: bool,
        alone: bool,
    ) -> None:
        """Take what is needed of X and Y; ``example_sq`` if it is known already. ``alone``: no
        other use of the weight is in this pass.
        """
        self.dtype = y.dtype
        self.y_norm = y_norm = self.form.gradient_row_norms(y)
        self.data = self.unit.rows(len(y_norm))
        if x is None:
            return
        # under autocast the product is formed in the dtype of the output
        x = x.detach().to(y.dtype)
        if paired:
            self.pair = self.form.rows(x), self.form.gradient_rows(y)
        if self.weighed is not None:
            self.weigh(self.weighed, Product(self.form, self.unit, x, y), by_example, alone)
        if by_example and not alone:
            self.product = Product(self.form, self.unit, x, y)
        elif by_example and self.normalized is not None:
            node, eps = self.normalized
            weight = self.weight.detach().flatten(1).T
            product = Product(self.form, self.unit, x, y)
            self.example_sq = normalized_example_sq(product, node.saved_tensors[0], weight, eps)
            self.coupled = True
        elif by_example and example_sq is not None:
            self.example_sq = example_sq
        elif by_example and self.examples == len(y_norm):  # a row is an example
            self.example_sq = (self.x_norm.double() * y_norm.double()).square()
        elif by_example:
            self.example_sq = squares([Product(self.form, self.unit, x, y)])
        self.normalized = None

    def weigh(self, weighed: Weighed, product: Product, by_example: bool, alone: bool) -> None:
        """Take what is needed in another metric."""
        assert self.y_norm is not None
        by_row = by_example and self.normalized is None and self.examples == len(self.y_norm)
        weighed.take(self.form.rows(product.x), self.form.gradient_rows(product.y), by_row)
        if not (by_example and alone) or weighed.example_sq is not None:
            return
        if self.normalized is None:
            weighed.example_sq = squares([product], weighed.metric.weights)
        else:
            node, eps = self.normalized
            of = node.saved_tensors[0], self.weight.detach().flatten(1).T, eps
            weighed.example_sq = normalized_example_sq(product, *of, weighed.metric.root)
