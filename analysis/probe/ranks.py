"""Ranks: the processes whose gradients are averaged, and their statistics brought together."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

ALONE = (
    "torch.distributed runs with {size} ranks, but this model is not wrapped, so that the probe"
    " takes the gradients to be of this rank's examples alone; give it the wrapped model, or"
    " group=torch.distributed.group.WORLD"
)

T = TypeVar("T")


def world() -> Any:
    """The group of all ranks, where there are several."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return dist.group.WORLD if several else None


def sharded_over(model: nn.Module) -> Any:
    """The group over which FSDP2 averages gradients, None where it does not. With tensor
    parallelism it is the first dimension of a mesh; where that replicates and the second shards,
    all ranks.
    """
    from torch.distributed.fsdp import FSDPModule  # slow to import

    if not any(isinstance(module, FSDPModule) for module in model.modules()):
        return None
    sharded: list[Any] = [p for p in model.parameters() if hasattr(p, "device_mesh")]
    first = min(sharded, key=lambda p: p.device_mesh.ndim)
    replicas = [placement.is_replicate() for placement in first.placements]
    return dist.group.WORLD if replicas == [True, False] else first.device_mesh.get_group(0)


@dataclass(frozen=True)
class Ranks:
    """``group`` None is this process alone."""

    group: Any = None

    @classmethod
    def of(cls, model: nn.Module, group: Any = None) -> "Ranks":
        """Those of the group given, else of a model wrapped by DDP or FSDP2; else this one, with a
        warning.
        """
        if world() is None:
            return cls()
        if group is None and isinstance(model, DistributedDataParallel):
            group = model.process_group
        if group is None:
            group = sharded_over(model)
        if group is None:
            warnings.warn(ALONE.format(size=dist.get_world_size()), stacklevel=4)
        return cls(group)

    @property
    def size(self) -> int:
        return 1 if self.group is None else dist.get_world_size(self.group)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.number == 0

    def replicas(self, weight: Any) -> int:
        """How many ranks hold the same shard of a weight."""
        if not hasattr(weight, "placements"):
            return self.size
        return math.prod(
            weight.device_mesh.size(i) for i, p in enumerate(weight.placements) if p.is_replicate()
        )

    @property
    def number(self) -> int:
        """Which of them this process is."""
        return 0 if self.group is None else dist.get_rank(self.group)

    def sum(self, t: Tensor) -> Tensor:
        """The sum of a tensor over the ranks."""
        if self.group is not None:
            dist.all_reduce(t := t.clone(), group=self.group)
        return t

    def greatest(self, number: int, device: torch.device) -> int:
        """The greatest of a whole number of every rank."""
        return max(int(t.item()) for (t,) in self.gather([torch.tensor([number], device=device)]))

    def gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Vectors of every rank, in the order of the ranks; each rank gives equally many, of any
        lengths.
        """
        if self.group is None:
            return [list(tensors)]
        device = tensors[0].device
        mine = torch.tensor([len(t) for t in tensors], device=device)
        sizes = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(sizes, mine, group=self.group)
        lengths = [s.tolist() for s in sizes]
        longest = max(sum(each) for each in lengths)
        flat = torch.cat([t.double() for t in tensors])
        flat = torch.nn.functional.pad(flat, (0, longest - len(flat)))
        flats = [torch.empty_like(flat) for _ in range(self.size)]
        dist.all_gather(flats, flat, group=self.group)
        return [list(f[: sum(each)].split(each)) for f, each in zip(flats, lengths, strict=True)]

    def tell(self, what: T) -> list[T]:
        """What every rank has to say, in the order of the ranks: anything that can be pickled."""
        if self.group is None:
            return [what]
        said: list[Any] = [None] * self.size
        dist.all_gather_object(said, what, group=self.group)
        return said

    def hear_first(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, or raises, on the first rank, which alone does it."""
        if self.group is None:
            return work()
        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = work()
            except Exception as error:
                told[1] = error
        dist.broadcast_object_list(told, group=self.group, group_src=0)
        if told[1] is not None:
            raise told[1]
        return told[0]

    def gather_rows(
        self, rows: Shaped[Tensor, "n d"], to: int | None = None
    ) -> Shaped[Tensor, "N d"] | None:
        """The rows of all ranks one after another, as many of each as it has: on every rank, or on
        the one numbered ``to``, and None on the others.
        """
        if self.group is None:
            return rows
        mine = torch.tensor([len(rows)], device=rows.device)
        sizes = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(sizes, mine, group=self.group)
        counts = [int(size) for size in sizes]
        even = torch.nn.functional.pad(rows, (0, 0, 0, max(counts) - len(rows))).contiguous()
        sent = even.view(torch.uint8)  # not all backends know all dtypes
        here = to is None or to == self.number
        parts = [torch.empty_like(sent) for _ in counts] if here else None
        if to is None:
            dist.all_gather(parts, sent, group=self.group)
        else:
            dist.gather(sent, parts, group=self.group, group_dst=to)
        if parts is None:
            return None
        return torch.cat([p.view(rows.dtype)[:n] for p, n in zip(parts, counts, strict=True)])


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside DDP's and the compiler's. Raises ValueError for
    nn.DataParallel.
    """
    if isinstance(model, nn.DataParallel):
        raise ValueError(
            "nn.DataParallel copies the model in every step; use DistributedDataParallel under"
            " torchrun"
        )
    inner = (
        model.module
        if isinstance(model, DistributedDataParallel)
        else getattr(model, "_orig_mod", model)
    )
    return inner if inner is model else unwrapped(inner)
