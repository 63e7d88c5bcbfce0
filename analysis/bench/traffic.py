"""What a piece of work asks of memory and of random numbers, counted as it runs: beside matrix
products, which are counted by their multiplications.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sketchvar.analysis.meter import Work
from sketchvar.estimators.kernels import compiled, counter, native

PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "baddbmm", "convolution", "convolution_backward"}
RANDOM = {"randn", "rand", "randint", "randperm", "bernoulli_", "random_", "uniform_", "normal_"}
MADE = {"zeros", "new_zeros", "zero_", "fill_", "full", "arange"}
GATHERED = {"index", "index_select", "gather", "embedding"}
NEITHER = {"empty", "empty_like", "new_empty", "empty_strided", "detach"}  # nor do views


@dataclass
class Traffic:
    """``bytes`` that are read and written, an operator's arguments and results once each;
    ``numbers`` that are drawn at random.
    """

    bytes: int = 0
    numbers: int = 0


class Watch(TorchDispatchMode):
    """Counts what PyTorch's operators do."""

    def __init__(self, seen: Traffic) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in PRODUCTS | NEITHER or func.is_view:
            return result
        made = list_tensors(result)
        given = list_tensors((args, kwargs or {}))
        if name in RANDOM:
            self.seen.numbers += sum(t.numel() for t in made)
        if name in RANDOM | MADE:
            given = []  # what is there is not read
        if name in GATHERED:
            given = made  # as much as is taken
        # in place a tensor is read and written
        self.seen.bytes += sum(map(count_bytes, [*given, *made]))
        return result


def list_tensors(given: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]


def count_bytes(t: Tensor) -> int:
    """Bytes of a tensor; of one that is expanded, those that there are."""
    numbers = 1
    for size, stride in zip(t.shape, t.stride(), strict=True):
        numbers *= size if stride else min(size, 1)
    return numbers * t.element_size()


def count_traffic(work: Work) -> Traffic:
    """Count what ``work`` moves and draws on a CPU, by one thread.

    C++ (``kernels.compiled``) reads or writes each of its arguments once, and draws a number for
    every entry that it rounds; so does a counter.
    """
    seen = Traffic()

    def watched(run: Callable[..., None]) -> Callable[..., None]:
        def call(name: str, *given: Tensor | int | None) -> None:
            run(name, *given)
            sent = list_tensors(given)
            seen.bytes += sum(map(count_bytes, sent))
            if name in {"round_even", "round_floating"}:
                seen.numbers += sent[0].numel()
            if name == "draw_rows":
                seen.numbers += 2 * sent[0].numel()  # halves of words

        return call

    def uniforms(n: int, p: int, *more: Any, **named: Any) -> Tensor:
        seen.numbers += n * p
        return made(n, p, *more, **named)

    made, run = counter.uniforms, native.call
    with (
        mock.patch.object(compiled, "call", watched(run)),
        mock.patch.object(native, "call", watched(run)),
        mock.patch.object(counter, "uniforms", uniforms),
        Watch(seen),
    ):
        work()
    return seen
