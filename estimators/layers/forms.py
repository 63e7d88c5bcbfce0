"""The three layers with one weight gradient G = XᵀY: how each runs, and where X, Y and G are in
it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad, unfold

from sketchvar.estimators.norms import norm


class Form(ABC):
    """How a layer reads its input as X (n × p), its output gradient as Y (n × q), its weight
    gradient as G (p × q).
    """

    @abstractmethod
    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The plain layer's output, from the plain layer's own kernel."""

    @abstractmethod
    def rows(self, x: Tensor) -> Tensor:
        """X (n × p) of an input."""

    @abstractmethod
    def gradient_rows(self, y: Tensor) -> Tensor:
        """Y (n × q) of an output gradient."""

    @abstractmethod
    def row_norms(self, x: Tensor) -> Tensor:
        """‖xᵢ‖ of each row of X, in float32 or wider, without forming X."""

    @abstractmethod
    def gradient_row_norms(self, y: Tensor) -> Tensor:
        """‖yᵢ‖ of each row of Y, in float32 or wider."""

    @abstractmethod
    def input_gradient(self, y: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """The exact gradient of an input of this shape."""

    @abstractmethod
    def weight_gradient(self, g: Tensor, weight: Tensor) -> Tensor:
        """G (p × q) in the shape of the weight."""

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight, or whatever has its shape, as G is laid out (p × q)."""
        return weight.flatten(1).T

    @abstractmethod
    def size(self, x: Tensor, weight: Tensor) -> tuple[int, int]:
        """(n, p) of X, without forming it."""

    @abstractmethod
    def positions(self, x: Tensor, n: int) -> int:
        """How many positions an example has; the n rows go through them over and over. 1 where that
        is not known.
        """


@dataclass(frozen=True)
class LinearForm(Form):
    """``nn.Linear``: the weight is q × p, any dimensions before the last are rows."""

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias)

    def rows(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1])

    def gradient_rows(self, y: Tensor) -> Tensor:
        return y.reshape(-1, y.shape[-1])

    def row_norms(self, x: Tensor) -> Tensor:
        return norm(x, dim=-1).flatten()

    def gradient_row_norms(self, y: Tensor) -> Tensor:
        return norm(y, dim=-1).flatten()

    def input_gradient(self, y: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        return (y.reshape(-1, y.shape[-1]) @ weight).view(shape)

    def weight_gradient(self, g: Tensor, weight: Tensor) -> Tensor:
        return g.T

    def size(self, x: Tensor, weight: Tensor) -> tuple[int, int]:
        return x.numel() // max(weight.shape[1], 1), weight.shape[1]

    def positions(self, x: Tensor, n: int) -> int:
        return x.shape[-2] if x.ndim > 2 else 1


@dataclass(frozen=True)
class Conv1DForm(Form):
    """Hugging Face's ``Conv1D`` (GPT-2): ``nn.Linear`` with its weight stored as p × q."""

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert bias is not None  # Conv1D always has one
        return torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight).view(
            *x.shape[:-1], weight.shape[1]
        )

    def rows(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1])

    def gradient_rows(self, y: Tensor) -> Tensor:
        return y.reshape(-1, y.shape[-1])

    def row_norms(self, x: Tensor) -> Tensor:
        return norm(x, dim=-1).flatten()

    def gradient_row_norms(self, y: Tensor) -> Tensor:
        return norm(y, dim=-1).flatten()

    def input_gradient(self, y: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        return (y.reshape(-1, y.shape[-1]) @ weight.T).view(shape)

    def weight_gradient(self, g: Tensor, weight: Tensor) -> Tensor:
        return g

    def matrix(self, weight: Tensor) -> Tensor:
        return weight

    def size(self, x: Tensor, weight: Tensor) -> tuple[int, int]:
        return x.numel() // max(weight.shape[0], 1), weight.shape[0]

    def positions(self, x: Tensor, n: int) -> int:
        return x.shape[-2] if x.ndim > 2 else 1


@dataclass(frozen=True)
class Conv2dForm(Form):
    """``nn.Conv2d`` without groups: a row of X is the patch under one output pixel,
    p = channels × kernel area.

    X has kernel area / stride² times the elements of the input, so little is saved where patches
    overlap much; a layer that would keep no less than its input keeps the input.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv2d(x, weight, bias, self.stride, self.padding, self.dilation)

    def rows(self, x: Tensor) -> Tensor:
        batch = x if x.ndim == 4 else x[None]
        patches = unfold(batch, self.kernel, self.dilation, self.padding, self.stride)  # N × p × L
        return patches.transpose(1, 2).reshape(-1, patches.shape[1])

    def gradient_rows(self, y: Tensor) -> Tensor:
        batch = y if y.ndim == 4 else y[None]
        return batch.permute(0, 2, 3, 1).reshape(-1, batch.shape[1])

    def row_norms(self, x: Tensor) -> Tensor:
        pixels = norm(x if x.ndim == 4 else x[None], dim=1)[:, None].square()
        return (
            unfold(pixels, self.kernel, self.dilation, self.padding, self.stride)
            .sum(1)
            .sqrt()
            .flatten()
        )

    def gradient_row_norms(self, y: Tensor) -> Tensor:
        return norm(y if y.ndim == 4 else y[None], dim=1).flatten()

    def input_gradient(self, y: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        batched = shape if len(shape) == 4 else torch.Size((1, *shape))
        x = y.new_empty(1).expand(batched)  # only its shape is read
        y = y if y.ndim == 4 else y[None]
        gradients = torch.ops.aten.convolution_backward(
            y,
            x,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            (0, 0),
            1,
            (True, False, False),
        )
        return gradients[0].reshape(shape)

    def weight_gradient(self, g: Tensor, weight: Tensor) -> Tensor:
        return g.T.reshape(weight.shape)

    def size(self, x: Tensor, weight: Tensor) -> tuple[int, int]:
        n = x.shape[0] if x.ndim == 4 else 1
        for i in (0, 1):
            span = self.dilation[i] * (self.kernel[i] - 1) + 1
            n *= (x.shape[i - 2] + 2 * self.padding[i] - span) // self.stride[i] + 1
        return n, weight[0].numel()

    def positions(self, x: Tensor, n: int) -> int:
        return n // max(x.shape[0], 1) if x.ndim == 4 else n


def conv2d_form(layer: nn.Conv2d, x: Tensor) -> tuple[Conv2dForm, Tensor]:
    """The form of a ``nn.Conv2d`` and the input it runs on: padded before where padding is named or
    not of zeros.
    """
    padding = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        sides = layer._reversed_padding_repeated_twice
        x = pad(x, sides, "constant" if layer.padding_mode == "zeros" else layer.padding_mode)
        padding = (0, 0)
    return Conv2dForm(layer.kernel_size, layer.stride, padding, layer.dilation), x  # type: ignore[arg-type]
