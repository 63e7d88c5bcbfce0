"""Units: which rows of a layer's input belong to one example."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Examples = int | Tensor | Callable[..., int | Tensor]

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

    @abstractmethod
    def flipped(self) -> "Unit":
        """The same for rows whose first two dimensions are exchanged."""

    @abstractmethod
    def of_images(self) -> "Unit":
        """The same for images, whose first dimension alone counts examples."""

    @abstractmethod
    def check(self, name: str, leading: torch.Size) -> None:
        """Raise ValueError unless a layer of this name, with rows of these dimensions, can be
        divided so.
        """


@dataclass(frozen=True, eq=False)
class Dimension(Unit):
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
        return Dimension(
            1 - self.number, self.data if self.data is None else self.data.transpose(0, 1)
        )

    def of_images(self) -> "Dimension":
        return Dimension(0)

    def check(self, name: str, leading: torch.Size) -> None:
        """Any rows have dimensions; a mask has to be of as many examples."""
        if (
            self.data is not None
            and leading != self.data.shape
            and leading[:1] != self.data.shape[:1]
        ):
            raise ValueError(mismatch(self.data, name, leading))


@dataclass(frozen=True, eq=False)
class Numbered(Unit):
    """Packed sequences: ``numbers`` names the example of every row, in any order; negative is
    padding.

    It has the leading dimensions of a layer's input, all or the first of them. How many examples
    there are has to be known at once: numbers on a GPU cost a synchronisation in each forward pass,
    numbers on the CPU do not.
    """

    numbers: Int[Tensor, "..."]
    table: Int[Tensor, "S T"]  # places of each example's rows, filled up with -1

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
        return cls(numbers, table)

    def flipped(self) -> "Numbered":
        return Numbered.of(self.numbers.transpose(0, 1)) if self.numbers.ndim > 1 else self

    def count(self, x: Tensor) -> int:
        return self.table.shape[0]

    def part(self, t: Tensor, examples: slice) -> Tensor:
        places = self.table[examples].flatten().to(t.device)
        listed = t.shape[0] == self.numbers.numel()  # a layer may see the rows in one dimension
        picked = (t if listed else t.flatten(0, self.numbers.ndim - 1))[places.clamp(min=0)]
        return picked * (places >= 0).view(-1, *[1] * (picked.ndim - 1))

    def of_images(self) -> "Numbered":
        return self

    def rows(self, n: int) -> Tensor | None:
        each = n // max(self.numbers.numel(), 1)
        return (self.numbers >= 0).flatten().repeat_interleave(each)

    def check(self, name: str, leading: torch.Size) -> None:
        if (
            leading[: self.numbers.ndim] != self.numbers.shape
            and leading[:1].numel() != self.numbers.numel()
        ):
            raise ValueError(mismatch(self.numbers, name, leading))


def mismatch(examples: Tensor, name: str, leading: torch.Size) -> str:
    return (
        f"examples= has shape {tuple(examples.shape)}, but the rows of {name} have"
        f" {tuple(leading)}; {GIVE}"
    )


def unit_of(examples: int | Tensor) -> Unit:
    """The unit that a probe's ``examples`` means, or what it gave if it is a function."""
    if isinstance(examples, int):
        return Dimension(examples)
    if isinstance(examples, Tensor) and examples.dtype == torch.bool:
        return Dimension(0, examples)
    return Numbered.of(examples)


def not_padding(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | int:
    """For a probe's ``examples``: a Hugging Face model's ``attention_mask`` says which rows are
    data.
    """
    return 0 if attention_mask is None or attention_mask.ndim != 2 else attention_mask.bool()
