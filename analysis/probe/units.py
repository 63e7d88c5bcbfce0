"""Units: which rows of a layer's input belong to one example."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

IGNORED = -100  # a label that cross entropy leaves out
Weights = Tensor | np.ndarray | Callable[..., Any]
Examples = int | Tensor | np.ndarray | Callable[..., Any]

GIVE = (
    "give the dimension that counts examples (0 or 1), a boolean tensor of the rows that are no"
    " padding, or an integer tensor with the example of every row, -1 for padding"
)


class Unit(ABC):
    """How the leading dimensions of a layer's input, and of its output gradient, divide into
    examples.
    """

    @abstractmethod
    def count(self, x: Tensor) -> int:
        """Number of examples."""

    @abstractmethod
    def part(self, t: Tensor, examples: slice) -> Tensor:
        """The rows of some of the examples, equally many of each, example after example along the
        first dimension.
        """

    @abstractmethod
    def rows(self, n: int) -> Tensor | None:
        """Which of the n rows are data, or None where nothing says that any is padding."""


class Layout(Unit):
    """A unit that a user gave, which has to be fitted to the rows of each layer."""

    @abstractmethod
    def flipped(self) -> "Layout":
        """The same for rows whose first two dimensions are exchanged."""

    @abstractmethod
    def fit(self, leading: torch.Size) -> Unit | str:
        """The unit of a layer whose rows have these dimensions, or why it has none."""


@dataclass(frozen=True, eq=False)
class Dimension(Layout):
    """Examples are counted by the first dimension, or by the second (sequences first). A vector is
    one example.

    ``data`` says which rows are no padding, in layers that have as many rows; all are in others.
    """

    number: int = 0
    data: Bool[Tensor, "..."] | None = None

    def __post_init__(self) -> None:
        if self.number not in (0, 1):
            raise ValueError(f"examples={self.number} is no dimension of rows; {GIVE}")

    def along(self, t: Tensor) -> Tensor:
        return t.transpose(0, 1) if self.number and t.ndim > 2 else t

    def count(self, x: Tensor) -> int:
        return self.along(x).shape[0] if x.ndim > 1 else 1

    def part(self, t: Tensor, examples: slice) -> Tensor:
        return self.along(t)[examples] if t.ndim > 1 else t[None]

    def rows(self, n: int) -> Tensor | None:
        return self.data.flatten() if self.data is not None and self.data.numel() == n else None

    def flipped(self) -> "Dimension":
        flat = self.data is None or self.data.ndim < 2
        return Dimension(1 - self.number, self.data if flat else self.data.transpose(0, 1))  # type: ignore[union-attr]

    def fit(self, leading: torch.Size) -> Unit | str:
        """Any rows have dimensions; a mask has to be of as many examples, or of as many rows in one
        dimension.
        """
        if self.data is None or leading == self.data.shape:
            return self
        shape, number = self.data.shape, self.number if self.data.ndim > 1 else 0
        if leading[number if len(leading) > 1 else 0 :][:1] == shape[number : number + 1]:
            return self
        if is_flat(leading, self.data.numel()):
            return Flat(self, shape, len(leading))
        return mismatch(shape, leading)


@dataclass(frozen=True, eq=False)
class Flat(Unit):
    """Rows of ``shape`` that a layer sees in one dimension, as experts do: in its first
    ``covered``.
    """

    inner: Unit
    shape: torch.Size
    covered: int

    def full(self, t: Tensor) -> Tensor:
        return t.flatten(0, self.covered - 1).unflatten(0, self.shape)

    def count(self, x: Tensor) -> int:
        return self.inner.count(self.full(x))

    def part(self, t: Tensor, examples: slice) -> Tensor:
        return self.inner.part(self.full(t), examples).flatten(0, len(self.shape) - 1)

    def rows(self, n: int) -> Tensor | None:
        return self.inner.rows(n)


@dataclass(frozen=True, eq=False)
class Numbered(Layout):
    """Packed sequences: ``numbers`` names the example of every row, in any order; negative is
    padding.

    It has the leading dimensions of a layer's input, all or the first ``covered`` of them. How many
    examples there are has to be known at once: numbers on a GPU cost a synchronisation in each
    forward pass, numbers on the CPU do not.
    """

    numbers: Int[Tensor, "..."]
    table: Int[Tensor, "S T"]  # places of each example's rows, filled up with -1
    covered: int

    @classmethod
    def of(cls, numbers: Tensor) -> "Numbered":
        """Raises ValueError unless ``numbers`` are integers."""
        if not isinstance(numbers, Tensor) or numbers.is_floating_point():
            kind = numbers.dtype if isinstance(numbers, Tensor) else type(numbers).__name__
            raise ValueError(f"examples= gave {kind}, not a tensor of integers; {GIVE}")
        flat = numbers.flatten().long()
        order = flat.argsort(stable=True)
        order = order[(flat < 0).sum() :]
        _, which, sizes = flat[order].unique_consecutive(return_inverse=True, return_counts=True)
        starts = sizes.cumsum(0) - sizes
        longest = int(sizes.max()) if len(sizes) else 0
        table = torch.full((len(sizes), longest), -1, device=flat.device)
        table[which, torch.arange(len(order), device=flat.device) - starts[which]] = order
        return cls(numbers, table, numbers.ndim)

    def flipped(self) -> "Numbered":
        return Numbered.of(self.numbers.transpose(0, 1)) if self.numbers.ndim > 1 else self

    def count(self, x: Tensor) -> int:
        return self.table.shape[0]

    def part(self, t: Tensor, examples: slice) -> Tensor:
        places = self.table[examples].flatten().to(t.device)
        picked = t.flatten(0, self.covered - 1)[places.clamp(min=0)]
        return picked * (places >= 0).view(-1, *[1] * (picked.ndim - 1))

    def rows(self, n: int) -> Tensor | None:
        each = n // max(self.numbers.numel(), 1)
        return (self.numbers >= 0).flatten().repeat_interleave(each)

    def fit(self, leading: torch.Size) -> Unit | str:
        """Rows with the dimensions of the numbers, or in one dimension; else a row, or whatever the
        first dimension counts, is an example, where there are as many.
        """
        if leading[: self.numbers.ndim] == self.numbers.shape:
            return self
        if is_flat(leading, self.numbers.numel()):
            return replace(self, covered=len(leading))
        if leading[:1] == self.table.shape[:1]:
            return Dimension(0)
        return mismatch(self.numbers.shape, leading)


def is_flat(leading: torch.Size, rows: int) -> bool:
    """Whether so many rows stand in one dimension; others may be of size 1."""
    return leading.numel() == rows and max(leading, default=0) == rows


def mismatch(shape: torch.Size, leading: torch.Size) -> str:
    """Why rows of these dimensions have no examples."""
    return (
        f"examples= has shape {tuple(shape)}, but its rows have {tuple(leading)}: which row is of"
        " which example is not known"
    )


def layout_of(examples: Any) -> Layout:
    """The layout that a probe's ``examples`` means, or what it gave if it is a function.

    Raises ValueError for what is none.
    """
    if isinstance(examples, np.ndarray):
        examples = torch.from_numpy(examples)
    if isinstance(examples, int | np.integer):
        return Dimension(int(examples))
    if isinstance(examples, Tensor) and examples.dtype == torch.bool:
        return Dimension(0, examples)
    return Numbered.of(examples)


def call_by_name(examples: Callable[..., Any], model: nn.Module, args: Any, kwargs: Any) -> Any:
    """``examples(*args, **kwargs)`` as the model was called; an argument that ``examples`` takes by
    name alone is found wherever the model was given it: by position, or in a dictionary.
    """
    wanted = {
        name
        for name, parameter in inspect.signature(examples).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in kwargs
    }
    if not wanted:
        return examples(*args, **kwargs)
    given: dict[str, Any] = {}
    for each in args:
        if isinstance(each, Mapping):
            given |= each
    given |= dict(zip(positions(model), args, strict=False))
    return examples(*args, **kwargs, **{name: given[name] for name in wanted & given.keys()})


def positions(model: nn.Module) -> list[str]:
    """Names of the arguments that ``model`` takes by position, those of the module inside where it
    hands on whatever it gets, as wrappers do.
    """
    for module in model.modules():
        parameters = inspect.signature(module.forward).parameters.values()
        if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    return []


def not_padding(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | int:
    """For a probe's ``examples``: a Hugging Face model's ``attention_mask`` says which rows are
    data, however the model is given it.
    """
    return 0 if attention_mask is None or attention_mask.ndim != 2 else attention_mask.bool()


def weights_of(given: Any) -> Tensor:
    """One number for each example, in proportion to its part of the batch, as a probe's
    ``weights`` gives them, in float64. Raises ValueError for what is none.
    """
    counts = torch.as_tensor(given)
    if counts.ndim != 1 or counts.is_complex() or counts.dtype == torch.bool:
        raise ValueError(
            f"weights= gave {counts.dtype} of shape {tuple(counts.shape)}, not one number for each"
            " example, as the tokens that its loss counts"
        )
    return counts.double()


def count_labels(
    *args: Any, labels: Tensor | None = None, shifted: bool = False, **kwargs: Any
) -> Tensor | None:
    """For a probe's ``weights``: the labels of each example that its loss counts, those that are
    not −100, as a Hugging Face model is given them. None, for equal weights, where it is given
    none.

    A causal model drops the first label of each example, to predict the others from those before:
    ``functools.partial(count_labels, shifted=True)``.
    """
    if labels is None or labels.ndim != 2:
        return None
    return (labels[:, int(shifted) :] != IGNORED).sum(1)
